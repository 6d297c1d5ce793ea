"""Penalties against transformers' processor and OpenAI's formula, for many rows at once."""

import random

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from model.batch import SamplingParams
from model.sampling.penalties import Occurrences, ban, bias, penalise
from tests.sampling import some_logits

VOCAB = 101


def some_ids(rng: random.Random) -> list[int]:
    return [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 60))]


def published(scores: list[float], output: list[int], presence: float, frequency: float) -> list[float]:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, where c counts what was put out, not the prompt."""
    return [mu - output.count(j) * frequency - (j in output) * presence for j, mu in enumerate(scores)]


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 2.0])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    rng, logits = random.Random(13), some_logits(20)
    ids = [some_ids(rng) for _ in logits]
    theirs = [
        RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), row[None].clone())[0]
        for seen, row in zip(ids, logits, strict=True)
    ]
    params = SamplingParams(repetition_penalty=penalty)
    rows = [(b, params, Occurrences(seen, rng.randrange(len(seen) + 1))) for b, seen in enumerate(ids)]
    penalise(logits, rows)
    assert torch.equal(logits, torch.stack(theirs))


@pytest.mark.parametrize(("presence", "frequency"), [(0.5, 0.0), (0.0, 0.5), (1.5, -0.75), (-2.0, 2.0)])
def test_presence_and_frequency_follow_the_published_formula(presence: float, frequency: float) -> None:
    rng, logits = random.Random(14), some_logits(20)
    params = SamplingParams(presence_penalty=presence, frequency_penalty=frequency)
    rows, expected = [], []
    for b in range(20):
        prompt, output = some_ids(rng), some_ids(rng)
        rows.append((b, params, Occurrences(prompt + output, len(prompt))))
        expected.append(published(logits[b].tolist(), output, presence, frequency))
    penalise(logits, rows)
    torch.testing.assert_close(logits, torch.tensor(expected), rtol=1e-6, atol=1e-5)


def test_rows_with_different_penalties_are_changed_apart_and_others_not_at_all() -> None:
    rng, logits = random.Random(15), some_logits(30)
    before = logits.clone()
    rows = []
    for b in range(0, 30, 2):
        params = SamplingParams(repetition_penalty=1 + b / 10, presence_penalty=b / 20, frequency_penalty=-b / 30)
        rows.append((b, params, Occurrences(some_ids(rng), 1)))
    penalise(logits, rows)
    assert torch.equal(logits[1::2], before[1::2])
    for b, params, seen in rows:
        alone = before[b : b + 1].clone()
        penalise(alone, [(0, params, seen)])
        assert torch.equal(alone[0], logits[b])


def test_penalties_before_the_first_output_change_nothing() -> None:
    logits = some_logits(2)
    before = logits.clone()
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=1.0)
    penalise(logits, [(0, params, Occurrences([4, 5, 6], 3))])
    assert torch.equal(logits, before)


def test_occurrences_grow_as_if_they_had_been_counted_at_once() -> None:
    rng = random.Random(16)
    ids = some_ids(rng) + some_ids(rng)
    for admitted in range(5, len(ids)):
        grown = Occurrences(ids[:admitted], 5)
        for token_id in ids[admitted:]:
            grown.push(token_id)
        at_once = Occurrences(ids, 5)
        assert (grown.ids, grown.counts) == (at_once.ids, at_once.counts)


def test_bias_is_added_and_nothing_else() -> None:
    logits = some_logits(3)
    expected = logits.clone()
    expected[0, 3] += 2.5
    expected[0, 19] -= 100
    expected[2, 3] += 1
    rows = [((3, 2.5), (19, -100.0)), (), ((3, 1.0),)]
    bias(logits, [(b, SamplingParams(logit_bias=pairs)) for b, pairs in enumerate(rows)])
    assert torch.equal(logits, expected)


def test_only_banned_ids_are_ruled_out() -> None:
    logits = some_logits(3)
    expected = logits.clone()
    expected[1, 7] = expected[1, 9] = -torch.inf
    ban(logits, [(0, ()), (1, (7, 9)), (2, ())])
    assert torch.equal(logits, expected)
