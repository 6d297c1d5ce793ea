"""The limits of what quantized weights may cost (docs/quantization.md), on the shipped checkpoint."""

import pytest

from benchmarks.quality import DEMO, Model, compare, texts_of
from model.checkpoint.folder import Checkpoint


@pytest.mark.parametrize(
    ("quantization", "head", "perplexity", "agreement", "kl"),
    [("int8", "none", 1.01, 0.97, 0.005), ("int8", "int8", 1.01, 0.96, 0.01), ("int4", "none", 1.03, 0.94, 0.03)],
)
def test_quantized_matrices_stay_near_to_the_others(
    quantization: str, head: str, perplexity: float, agreement: float, kl: float
) -> None:
    checkpoint = Checkpoint.open(DEMO)
    texts = texts_of(DEMO, checkpoint, windows=2)
    found = compare(Model(checkpoint, "none"), Model(checkpoint, quantization, head), texts)
    assert found.base < 2.1, "the texts are what the checkpoint knows"
    assert found.perplexity < perplexity * found.base
    assert found.agreement > agreement
    assert 0 < found.kl < kl
