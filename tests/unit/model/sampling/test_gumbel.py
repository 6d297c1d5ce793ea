"""Random sampling: its probabilities, its independence, and the noise that it is made with."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from model.batch import SamplingParams
from model.sampling.gumbel import gumbel_noise, noise_key
from model.sampling.sampler import Sampler, sample
from tests.sampling import sampler, warped

TRUST = 0.001  # a test of a distribution fails if chance explains what it sees less often than this


def sampled(logits_BV: torch.Tensor, rows: Sequence[Sampler]) -> list[int]:
    return [token.token_id for token in sample(logits_BV, rows)]


def chance(counts: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Pearson's chi-square test: how often counts as far off as these come by chance."""
    expected = probabilities.double() * counts.sum()
    assert expected.min() >= 5, "too few samples for the test"
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = torch.tensor((counts.numel() - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


VOCAB, SAMPLES = 13, 16_000
LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(9))


def varied(vary: str, n: int) -> Sampler:
    """The n-th of many samples that differ in one of the three things that the noise is keyed with."""
    seed, index, position = {"seed": (n, 0, 7), "output_index": (5, n, 7), "position": (5, 0, n)}[vary]
    return sampler(SamplingParams(seed=seed, output_index=index), range(position))


def frequencies(vary: str) -> torch.Tensor:
    ids: list[int] = []
    for start in range(0, SAMPLES, 2000):
        ids += sampled(LOGITS.expand(2000, -1), [varied(vary, n) for n in range(start, start + 2000)])
    return torch.bincount(torch.tensor(ids), minlength=VOCAB)


@pytest.mark.parametrize("vary", ["seed", "output_index", "position"])
def test_tokens_are_sampled_with_the_probabilities_of_softmax(vary: str) -> None:
    assert chance(frequencies(vary), LOGITS.softmax(-1)) > TRUST


@pytest.mark.parametrize("params", [
    SamplingParams(temperature=0.6), SamplingParams(temperature=1.5, top_k=6), SamplingParams(top_p=0.8),
    SamplingParams(temperature=1.3, min_p=0.2), SamplingParams(temperature=0.8, top_k=9, top_p=0.9, min_p=0.05),
])  # fmt: skip
def test_tokens_are_sampled_with_the_probabilities_that_transformers_leaves(params: SamplingParams) -> None:
    rows = [sampler(replace(params, seed=seed)) for seed in range(SAMPLES)]
    counts = torch.bincount(torch.tensor(sampled(LOGITS.expand(SAMPLES, -1), rows)), minlength=VOCAB)
    probabilities = warped(LOGITS[None], params)[0].softmax(-1)
    kept = probabilities > 0
    assert counts[~kept].sum() == 0
    assert chance(counts[kept], probabilities[kept]) > TRUST


def too_cold(noise: torch.Tensor) -> torch.Tensor:
    return 0.9 * noise


def uniform(noise: torch.Tensor) -> torch.Tensor:
    return torch.exp(-torch.exp(-noise))


def mirrored(noise: torch.Tensor) -> torch.Tensor:
    return -noise


@pytest.mark.parametrize("wrong", [too_cold, uniform, mirrored])
def test_a_wrong_sampler_is_told_by_the_same_test(
    wrong: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.sampling.sampler.gumbel_noise", lambda *arguments: wrong(gumbel_noise(*arguments)))
    assert chance(frequencies("position"), LOGITS.softmax(-1)) < 1e-6


def test_successive_tokens_of_a_sequence_are_independent() -> None:
    ids = sampled(torch.zeros(SAMPLES, 8), [varied("position", n) for n in range(SAMPLES)])
    for lag in (1, 2, 3):
        pairs = torch.tensor([8 * a + b for a, b in zip(ids, ids[lag:], strict=False)])
        assert chance(torch.bincount(pairs, minlength=64), torch.full((64,), 1 / 64)) > TRUST


def test_outputs_of_one_seed_are_independent_of_each_other() -> None:
    def ids(index: int) -> list[int]:
        rows = [sampler(SamplingParams(seed=3, output_index=index), range(n)) for n in range(SAMPLES)]
        return sampled(torch.zeros(SAMPLES, 8), rows)

    pairs = torch.tensor([8 * a + b for a, b in zip(ids(0), ids(1), strict=True)])
    assert chance(torch.bincount(pairs, minlength=64), torch.full((64,), 1 / 64)) > TRUST


# ---- the noise ------------------------------------------------------------------------------------------------


def split_mix(x: int) -> int:
    """SplitMix64's finaliser on Python's integers."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@pytest.mark.parametrize("key", [0, 1, 2**63 - 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF])
def test_noise_is_the_documented_hash(key: int) -> None:
    """The same on every machine and in every version: a seed is a promise to those who wrote it down."""
    for token, noise in enumerate(gumbel_noise([key], 50)[0].tolist()):
        bits = split_mix((key + 0x9E3779B97F4A7C15 * (token + 1)) % 2**64)
        assert noise == pytest.approx(-math.log(-math.log(((bits >> 11) + 0.5) / 2**53)), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((0, 0, 0), 0xA706DD2F4D197E6F),
        ((1, 2, 3), 0xCB4231B3C036E95D),
        ((2**64 - 1, 7, 100_000), 0x138F6ADFF8E4F6EA),
        ((-1, 7, 100_000), 0x138F6ADFF8E4F6EA),  # seeds count modulo 2^64
    ],
)
def test_keys_stay_what_they_were(arguments: tuple[int, int, int], key: int) -> None:
    assert noise_key(*arguments) == key


def test_keys_differ_in_each_argument() -> None:
    keys = {noise_key(seed, index, position) for seed in range(20) for index in range(20) for position in range(20)}
    assert len(keys) == 20**3


def test_noise_of_a_token_depends_on_its_key_and_id_alone() -> None:
    keys = [noise_key(s, 0, 0) for s in range(5)]
    together = gumbel_noise(keys, 100)
    for b, key in enumerate(keys):
        assert torch.equal(gumbel_noise([key], 40)[0], together[b, :40])


def test_noise_has_the_distribution_of_gumbel() -> None:
    noise = gumbel_noise([noise_key(0, 0, position) for position in range(200)], 500)
    bins = (torch.exp(-torch.exp(-noise)) * 100).long().flatten()  # the distribution function makes it uniform
    assert chance(torch.bincount(bins, minlength=100), torch.full((100,), 0.01)) > TRUST
    assert noise.isfinite().all()
