"""Sampling: independence of batch mates, and every parameter against an oracle (the noise: test_gumbel.py)."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import MinLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from model.batch import Constraint, ConstraintKind, SampledToken, SamplingParams
from model.sampling import sampler as sampling
from model.sampling.sampler import Sampler, sample, shape
from tests.sampling import sampler, some_logits, some_params, warped

GREEDY = SamplingParams(temperature=0.0)


def sampled(logits_BV: torch.Tensor, rows: Sequence[Sampler]) -> list[int]:
    return [token.token_id for token in sample(logits_BV, rows)]


def test_batch_mates_change_nothing() -> None:
    rng, source = random.Random(10), torch.Generator().manual_seed(10)
    logits = torch.randn(60, 101, generator=source) * 3
    rows = [
        sampler(some_params(rng), [rng.randrange(101) for _ in range(rng.randrange(3, 40))], 3, slot=b)
        for b in range(60)
    ]
    alone = [sample(logits[b : b + 1], [row])[0] for b, row in enumerate(rows)]
    for _ in range(5):
        order = rng.sample(range(60), rng.randrange(1, 61))
        assert sample(logits[order], [rows[b] for b in order]) == [alone[b] for b in order]


def test_logits_are_left_alone() -> None:
    logits = torch.randn(1, 20)
    before = logits.clone()
    row = SamplingParams(
        repetition_penalty=2.0, frequency_penalty=1.0, logit_bias=((1, 9.0),), banned=(2,), min_tokens=9
    )
    sample(logits, [sampler(row, [1, 2, 3], 1)])
    assert torch.equal(logits, before)


def test_nobody_to_sample_for_is_no_error() -> None:
    assert sample(torch.empty(0, 20), []) == []


def test_only_what_is_not_cut_is_sampled() -> None:
    params = SamplingParams(temperature=2.0, top_k=5, top_p=0.9)
    logits = some_logits(1, 30)
    ids = sampled(logits.expand(500, -1), [sampler(params, range(n)) for n in range(500)])
    assert set(ids) == set(warped(logits, params)[0].isfinite().nonzero().flatten().tolist())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bias", [100.0, -100.0])
def test_logit_bias_forces_and_forbids(bias: float, temperature: float) -> None:
    logits = torch.randn(1, 6, generator=torch.Generator().manual_seed(14)).expand(300, -1)
    params = SamplingParams(temperature, logit_bias=((4, bias),))
    ids = sampled(logits, [sampler(params, range(n)) for n in range(300)])
    assert set(ids) == {4} if bias > 0 else 4 not in ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_ids_wait_for_min_tokens(temperature: float) -> None:
    logits = torch.full((1, 6), -9.0)
    logits[0, [2, 3]] = 9.0
    params = SamplingParams(temperature, min_tokens=2, banned=(2, 3))
    ids = [sampled(logits, [sampler(params, [0] * (5 + outputs), prompt_length=5)])[0] for outputs in range(4)]
    assert [i in (2, 3) for i in ids] == [False, False, True, True]


@pytest.mark.parametrize("seed", range(5))
def test_everything_together_follows_transformers_order(seed: int) -> None:
    """Penalties, bias, the ban before min_tokens, then what temperature and cuts leave."""
    rng, logits = random.Random(seed), some_logits(80)
    texts = [[rng.randrange(101) for _ in range(rng.randrange(4, 40))] for _ in range(80)]
    rows = [sampler(some_params(rng), text, 3, slot=b) for b, text in enumerate(texts)]
    scores = shape(logits, rows)
    for b, row in enumerate(rows):
        p, ids = row.params, torch.tensor([texts[b]])
        expected = RepetitionPenaltyLogitsProcessor(p.repetition_penalty)(ids, logits[b : b + 1].clone())
        counts = torch.bincount(ids[0, 3:], minlength=101)
        expected = expected - (counts * p.frequency_penalty + (counts > 0) * p.presence_penalty)
        for token_id, value in p.logit_bias:
            expected[0, token_id] += value
        if p.banned:
            expected = MinLengthLogitsProcessor(3 + p.min_tokens, list(p.banned))(ids, expected)
        torch.testing.assert_close(scores[b], expected[0], rtol=1e-6, atol=1e-5)
        if p.temperature > 0:
            assert bool(warped(expected, p)[0, sampled(logits[b : b + 1], [row])[0]].isfinite())


@pytest.mark.parametrize("seed", range(3))
def test_sampler_that_is_admitted_with_an_output_goes_on_as_if_it_had_never_left(seed: int) -> None:
    rng, logits = random.Random(seed), some_logits(41)
    params = [some_params(rng) for _ in range(20)]
    rows, texts = [sampler(p, [1, 2, 3], 3) for p in params], [[1, 2, 3] for _ in params]
    for step in range(20):
        ids = sampled(logits[step : step + 20], rows)
        resumed = [sampler(p, text, 3) for p, text in zip(params, texts, strict=True)]
        assert sampled(logits[step : step + 20], resumed) == ids
        for row, text, token_id in zip(rows, texts, ids, strict=True):
            row.push(token_id)
            text.append(token_id)


# ---- constraints ----------------------------------------------------------------------------------------------


class Ascending:
    """A mask that allows only ids above the last one; at the vocabulary's end only the last id."""

    failure = ""

    def __init__(self, vocab: int) -> None:
        self.mask, self.pushed = np.ones(vocab, np.bool_), list[int]()

    def allowed(self) -> NDArray[np.bool_]:
        return self.mask.copy()

    def push(self, token_id: int) -> None:
        self.pushed.append(token_id)
        self.mask[: token_id + 1] = False
        self.mask[-1] = True


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_only_what_the_constraint_allows_is_sampled_and_others_are_free(temperature: float) -> None:
    logits = some_logits(2)
    rows = [sampler(SamplingParams(temperature, seed=3), slot=b) for b in range(2)]
    rows[0] = sampler(constrained(temperature), mask=Ascending(101))
    alone = [sampler(rows[1].params, slot=1)]
    for _ in range(30):
        ids = sampled(logits, rows)
        assert ids[1:] == sampled(logits[1:], alone)
        for row, token_id in zip([*rows, *alone], [*ids, ids[1]], strict=True):
            row.push(token_id)
    assert isinstance(rows[0].mask, Ascending)
    climb = rows[0].mask.pushed
    assert climb == sorted(climb) and len(set(climb)) > 3


def constrained(temperature: float, **more: Any) -> SamplingParams:
    return SamplingParams(temperature, seed=3, constraint=Constraint(ConstraintKind.REGEX, "for the mask"), **more)


def test_an_output_sampled_already_is_pushed_into_a_new_mask() -> None:
    mask = Ascending(20)
    sampler(constrained(0.0), [9, 8, 4, 6], 2, mask=mask)
    assert mask.pushed == [4, 6]


def test_constraint_wins_over_min_tokens_and_over_bias() -> None:
    mask, params = Ascending(6), constrained(0.0, min_tokens=9, banned=(5,), logit_bias=((0, 100.0),))
    logits, row = torch.zeros(1, 6), sampler(params, mask=mask)
    row.push(3)
    assert sampled(logits, [row]) == [4], "5 is allowed, but banned, and 0 is not allowed"
    row.push(4)
    assert sampled(logits, [row]) == [5], "nothing but the banned one is left"


# ---- greedy, cold, and what is reported -----------------------------------------------------------------------


def test_temperature_zero_takes_the_best_whatever_the_seed() -> None:
    logits = torch.randn(50, 101, generator=torch.Generator().manual_seed(15))
    for seed in range(3):
        params = dataclasses.replace(GREEDY, seed=seed, top_k=3, top_p=0.5, min_p=0.2)
        assert sampled(logits, [sampler(params)] * 50) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [1e-3, 1e-6, 1e-30, 1e-300, 5e-324])
def test_cold_samples_tend_to_the_best(temperature: float) -> None:
    """Also where dividing by it would overflow."""
    logits = torch.arange(100.0).expand(20, -1)
    params = SamplingParams(temperature, top_p=0.9, min_p=0.1)
    assert sampled(logits, [sampler(params, range(n)) for n in range(20)]) == [99] * 20


def test_greedy_takes_penalties_and_bias_into_account() -> None:
    logits = torch.tensor([[5.0, 4.9, 1.0]])
    assert sampled(logits, [sampler(GREEDY, [0])]) == [0]
    assert sampled(logits, [sampler(dataclasses.replace(GREEDY, repetition_penalty=1.5), [0])]) == [1]
    assert sampled(logits, [sampler(dataclasses.replace(GREEDY, logit_bias=((2, 10.0),)), [0])]) == [2]


@pytest.mark.parametrize("count", [0, 1, 5, 500])
def test_logprobs_are_log_softmax_of_the_raw_logits(count: int) -> None:
    logits = torch.randn(8, 101, generator=torch.Generator().manual_seed(16))
    params = SamplingParams(0.5, top_k=3, repetition_penalty=1.5, logit_bias=((7, 5.0),), logprobs=count)
    exact = logits.double().log_softmax(-1)
    for b, token in enumerate(sample(logits, [sampler(params, [1, 2, b], 1, slot=b) for b in range(8)])):
        assert token.slot == b
        assert token.logprob == pytest.approx(float(exact[b, token.token_id]), abs=1e-5)
        best = exact[b].sort(descending=True)
        assert [i for i, _ in token.top] == best.indices[:count].tolist()
        assert [value for _, value in token.top] == pytest.approx(best.values[:count].tolist(), abs=1e-5)


def test_a_long_prompt_is_scored_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """F16 of docs/clients.md: its logits are large, and must not be there twice."""
    held = [0]

    def watched(logits_RV: torch.Tensor, *given: Any) -> tuple[torch.Tensor, ...]:
        held.append(len(logits_RV))
        return score(logits_RV, *given)

    score = sampling._score
    monkeypatch.setattr(sampling, "_score", watched)
    logits, ids = some_logits(300, 50), torch.arange(300) % 50
    found = sampling.logprobs(logits, ids, [2] * 300)
    assert sum(held) == 300 and max(held) <= 128
    wanted = logits.log_softmax(-1)
    assert [own for own, _ in found] == wanted.gather(1, ids[:, None])[:, 0].tolist()
    assert [[i for i, _ in top] for _, top in found] == wanted.topk(2).indices.tolist()


def test_without_logprobs_only_the_token_is_reported() -> None:
    assert sample(torch.tensor([[0.0, 1.0]]), [sampler(GREEDY, slot=6)]) == [SampledToken(6, 1)]
