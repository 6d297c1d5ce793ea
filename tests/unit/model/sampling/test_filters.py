"""Temperature, top-k, top-p and min-p are those of transformers, row by row."""

import dataclasses
import random

import pytest
import torch

from model.batch import SamplingParams
from model.sampling.filters import cut
from tests.sampling import some_logits, some_params, warped


def same_scores(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """What is ruled out is the same; what is left agrees to the last bits of fp32."""
    assert torch.equal(ours == -torch.inf, theirs == -torch.inf)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, 50, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 0.01, 1e-9])
@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.9, 1.0])
def test_cuts_are_those_of_transformers(temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits, params = some_logits(40), SamplingParams(temperature, top_p, top_k, min_p)
    same_scores(cut(logits, [params] * 40), warped(logits, params))


def test_rows_with_different_cuts_are_cut_apart() -> None:
    logits, rng = some_logits(60), random.Random(12)
    logits[::3, ::2] -= 200  # probabilities of zero, in fp32
    rows = [dataclasses.replace(some_params(rng), temperature=rng.choice([0.5, 1.5])) for _ in range(60)]
    ours = cut(logits, rows)
    same_scores(ours, torch.cat([warped(logits[b : b + 1], row) for b, row in enumerate(rows)]))


@pytest.mark.parametrize("vocab", [2, 3, 5, 8, 10, 100])
def test_top_p_cuts_ties_at_its_edge_as_transformers_does(vocab: int) -> None:
    """Equal probabilities add up to the limit itself: how 1 - p is rounded decides."""
    logits = torch.zeros(1, vocab)
    for percent in range(1, 100):
        params = SamplingParams(top_p=percent / 100)
        same_scores(cut(logits, [params]), warped(logits, params))
