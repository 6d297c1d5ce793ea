"""Sampling: independence of batch mates, and every parameter against an oracle (the draw itself: test_gumbel.py)."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from model import sampling
from model.batch import SampledToken, SamplingParams
from model.sampling import DrawRequest, draw

GREEDY = SamplingParams(temperature=0.0)


def request(
    params: SamplingParams, token_ids: Sequence[int] = (), prompt_length: int = 0, slot: int = 0
) -> DrawRequest:
    return DrawRequest(slot, params, token_ids, prompt_length)


def drawn(logits_BV: torch.Tensor, rows: Sequence[DrawRequest]) -> list[int]:
    return [token.token_id for token in draw(logits_BV, rows)]


def some_params(rng: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=rng.choice([0.0, 0.3, 1.0, 1.7]),
        top_p=rng.choice([1.0, 0.9, 0.5]),
        top_k=rng.choice([0, 1, 5, 1000]),
        min_p=rng.choice([0.0, 0.1]),
        repetition_penalty=rng.choice([1.0, 1.3]),
        presence_penalty=rng.choice([0.0, 0.7]),
        frequency_penalty=rng.choice([0.0, -0.4]),
        logit_bias=rng.choice([(), ((3, 2.0), (8, -100.0))]),
        seed=rng.randrange(2**64),
        output_index=rng.randrange(4),
        min_tokens=rng.choice([0, 30]),
        banned=rng.choice([(), (2, 4)]),
        logprobs=rng.choice([-1, 0, 3]),
    )


def test_batch_mates_change_nothing() -> None:
    rng, source = random.Random(10), torch.Generator().manual_seed(10)
    logits = torch.randn(60, 101, generator=source) * 3
    rows = [
        request(some_params(rng), [rng.randrange(101) for _ in range(rng.randrange(3, 40))], 3, slot=b)
        for b in range(60)
    ]
    alone = [draw(logits[b : b + 1], [row])[0] for b, row in enumerate(rows)]
    for _ in range(5):
        order = rng.sample(range(60), rng.randrange(1, 61))
        assert draw(logits[order], [rows[b] for b in order]) == [alone[b] for b in order]


def test_logits_are_left_alone() -> None:
    logits = torch.randn(1, 20)
    before = logits.clone()
    row = SamplingParams(
        repetition_penalty=2.0, frequency_penalty=1.0, logit_bias=((1, 9.0),), banned=(2,), min_tokens=9
    )
    draw(logits, [request(row, [1, 2, 3], 1)])
    assert torch.equal(logits, before)


def test_nobody_to_draw_for_is_no_error() -> None:
    assert draw(torch.empty(0, 20), []) == []


# ---- parameters against transformers --------------------------------------------------------------------------


def same_scores(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """What is ruled out is the same; what is left agrees to the last bits of fp32."""
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def some_logits(rows: int, vocab: int = 101) -> torch.Tensor:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(11)) * 3
    logits[rows // 2 :] = logits[rows // 2 :].round()  # with ties
    return logits


def warped(logits: torch.Tensor, p: SamplingParams) -> torch.Tensor:
    """By transformers' processors, in the order in which `generate` has them."""
    ids: Any = torch.zeros(len(logits), 0, dtype=torch.int64)
    processors: list[Any] = [TemperatureLogitsWarper(p.temperature)]
    processors += [TopKLogitsWarper(p.top_k)] if p.top_k else []
    processors += [TopPLogitsWarper(p.top_p)] if p.top_p < 1 else []
    processors += [MinPLogitsWarper(p.min_p)] if p.min_p else []
    for processor in processors:
        logits = processor(ids, logits)
    return logits


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 0.01, 1e-9])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.9, 1.0])
def test_cuts_are_those_of_transformers(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits, params = some_logits(40), SamplingParams(temperature, top_p, top_k, min_p)
    same_scores(sampling._cut(logits, [request(params)] * 40), warped(logits, params))


def test_rows_with_different_cuts_are_cut_apart() -> None:
    logits, rng = some_logits(60), random.Random(12)
    logits[::3, ::2] -= 200  # probabilities of zero, in fp32
    rows = [dataclasses.replace(some_params(rng), temperature=rng.choice([0.5, 1.5])) for _ in range(60)]
    ours = sampling._cut(logits, [request(row) for row in rows])
    same_scores(ours, torch.cat([warped(logits[b : b + 1], row) for b, row in enumerate(rows)]))


@pytest.mark.parametrize("vocab", [2, 3, 5, 8, 10, 100])
def test_top_p_cuts_ties_at_its_edge_as_transformers_does(vocab: int) -> None:
    """Equal probabilities add up to the limit itself: how 1 - p is rounded decides."""
    logits = torch.zeros(1, vocab)
    for percent in range(1, 100):
        params = SamplingParams(top_p=percent / 100)
        same_scores(sampling._cut(logits, [request(params)]), warped(logits, params))


def test_only_what_is_not_cut_is_drawn() -> None:
    params = SamplingParams(temperature=2.0, top_k=5, top_p=0.9)
    logits = some_logits(1, 30)
    ids = drawn(logits.expand(500, -1), [request(params, range(n)) for n in range(500)])
    assert set(ids) == set(warped(logits, params)[0].isfinite().nonzero().flatten().tolist())


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 2.0])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    rng, logits = random.Random(13), some_logits(20)
    for scores in logits:
        seen = [rng.randrange(101) for _ in range(rng.randrange(1, 60))]
        theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), scores[None].clone())[0]
        params = SamplingParams(repetition_penalty=penalty)
        sampling._penalise(scores, request(params, seen, prompt_length=rng.randrange(len(seen) + 1)))
        assert torch.equal(scores, theirs)


@pytest.mark.parametrize(("presence", "frequency"), [(0.5, 0.0), (0.0, 0.5), (1.5, -0.75), (-2.0, 2.0)])
def test_presence_and_frequency_follow_the_published_formula(presence: float, frequency: float) -> None:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, where c counts what was put out, not the prompt."""
    prompt, output = [1, 1, 2, 9], [3, 3, 3, 2, 5]
    params = SamplingParams(presence_penalty=presence, frequency_penalty=frequency)
    scores = some_logits(2, 12)[0]
    expected = [float(mu) - output.count(j) * frequency - (j in output) * presence for j, mu in enumerate(scores)]
    sampling._penalise(scores, request(params, prompt + output, len(prompt)))
    assert scores.tolist() == pytest.approx(expected, abs=1e-6)


def test_penalties_before_the_first_output_change_nothing() -> None:
    scores = some_logits(2)[0]
    before = scores.clone()
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=1.0)
    sampling._penalise(scores, request(params, [4, 5, 6], prompt_length=3))
    assert torch.equal(scores, before)


def test_logit_bias_is_added_and_nothing_else() -> None:
    logits = some_logits(2, 20)
    expected = logits[0].clone()
    expected[3] += 2.5
    expected[19] -= 100
    sampling._bias_and_ban(logits[0], request(SamplingParams(logit_bias=((3, 2.5), (19, -100.0)))))
    assert torch.equal(logits[0], expected)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bias", [100.0, -100.0])
def test_logit_bias_forces_and_forbids(bias: float, temperature: float) -> None:
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(14)).expand(300, -1)
    params = SamplingParams(temperature, logit_bias=((4, bias),))
    ids = drawn(logits, [request(params, range(n)) for n in range(300)])
    assert set(ids) == {4} if bias > 0 else 4 not in ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_ids_wait_for_min_tokens(temperature: float) -> None:
    logits = torch.full((1, 6), -9.0)
    logits[0, [2, 3]] = 9.0
    params = SamplingParams(temperature, min_tokens=2, banned=(2, 3))
    ids = [drawn(logits, [request(params, [0] * (5 + outputs), prompt_length=5)])[0] for outputs in range(4)]
    assert [i in (2, 3) for i in ids] == [False, False, True, True]


# ---- greedy, cold, and what is reported -----------------------------------------------------------------------


def test_temperature_zero_takes_the_best_whatever_the_seed() -> None:
    logits = torch.randn(50, 101, generator=torch.Generator().manual_seed(15))
    for seed in range(3):
        params = dataclasses.replace(GREEDY, seed=seed, top_k=3, top_p=0.5, min_p=0.2)
        assert drawn(logits, [request(params)] * 50) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30, 1e-300, 5e-324])
def test_cold_draws_tend_to_the_best(temperature: float) -> None:
    """Also where dividing by it would overflow."""
    logits = torch.arange(100.0).expand(20, -1)
    params = SamplingParams(temperature, top_p=0.9, min_p=0.1)
    assert drawn(logits, [request(params, range(n)) for n in range(20)]) == [99] * 20


def test_greedy_takes_penalties_and_bias_into_account() -> None:
    logits = torch.tensor([[5.0, 4.9, 1.0]])
    assert drawn(logits, [request(GREEDY, [0])]) == [0]
    assert drawn(logits, [request(dataclasses.replace(GREEDY, repetition_penalty=1.5), [0])]) == [1]
    assert drawn(logits, [request(dataclasses.replace(GREEDY, logit_bias=((2, 10.0),)), [0])]) == [2]


@pytest.mark.parametrize("count", [0, 1, 5, 500])
def test_logprobs_are_log_softmax_of_the_raw_logits(count: int) -> None:
    logits = torch.randn(8, 101, generator=torch.Generator().manual_seed(16))
    params = SamplingParams(0.5, top_k=3, repetition_penalty=1.5, logit_bias=((7, 5.0),), logprobs=count)
    exact = logits.double().log_softmax(-1)
    for b, token in enumerate(draw(logits, [request(params, [1, 2, b], 1, slot=b) for b in range(8)])):
        assert token.slot == b
        assert token.logprob == pytest.approx(float(exact[b, token.token_id]), abs=1e-5)
        best = exact[b].sort(descending=True)
        assert [i for i, _ in token.top] == best.indices[:count].tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values[:count].tolist(), abs=1e-5)


def test_without_logprobs_only_the_token_is_reported() -> None:
    assert draw(torch.tensor([[0.0, 1.0]]), [request(GREEDY, slot=6)]) == [SampledToken(6, 1)]
