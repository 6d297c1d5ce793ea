"""Every flash backend against torch's own attention, on the same pages, and each row alone against its batch."""

from collections.abc import Iterator

import pytest
import torch

from benchmarks.gpu.measure.scene import Scene
from model.attention.attention import AttentionBackend, backends, fault
from model.config import MixtralConfig

DEVICE = torch.device("cuda")
HEADS = [(8, 8), (32, 8), (8, 1)]
WINDOWS = [None, 1, 100, 256, 4096]
# (start, length) of each chunk in the batch; pages have 256 or 512 rows
BATCHES = {
    "prefill": [(0, 300), (0, 1), (0, 517)],
    "decode": [(299, 1), (0, 1), (1023, 1), (256, 1)],
    "later chunks": [(300, 64), (17, 512)],
    "mixed": [(0, 270), (700, 1), (255, 33), (40, 1)],
}
NAMES = [b.name for b in backends(torch.bfloat16, DEVICE, 128, None, 256)]


def offered(window: int | None, page_size: int, head_dim: int = 128) -> Iterator[AttentionBackend]:
    yield from backends(torch.bfloat16, DEVICE, head_dim, window, page_size)


@pytest.mark.parametrize("page_size", [256, 512])
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("batch", BATCHES)
def test_backends_agree_in_bf16(batch: str, window: int | None, heads: tuple[int, int], page_size: int) -> None:
    config = MixtralConfig(num_attention_heads=heads[0], num_key_value_heads=heads[1])
    scene = Scene.build(config, BATCHES[batch], page_size, torch.bfloat16, DEVICE)
    *fast, sdpa = offered(window, page_size)
    expected = scene.attend(sdpa)
    for backend in fast:  # a few last bits of bf16
        torch.testing.assert_close(scene.attend(backend), expected, rtol=2e-2, atol=2e-2, msg=backend.name)


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("page_size", [16, 256])
@pytest.mark.parametrize("window", WINDOWS)
def test_none_has_a_fault(window: int | None, page_size: int, head_dim: int) -> None:
    for backend in offered(window, page_size, head_dim):
        assert fault(backend, torch.bfloat16, DEVICE, head_dim, window, page_size) == "", backend.name


@pytest.mark.parametrize("name", NAMES)
def test_batch_mates_do_not_change_a_bit(name: str) -> None:
    chunks = [(17 * i % 900, 1) for i in range(40)] + [(300, 64), (0, 90)]
    scene = Scene.build(MixtralConfig(), chunks, 256, torch.bfloat16, DEVICE)
    backend = next(b for b in offered(None, 256) if b.name == name)
    alone = scene.attend(backend, [[segment] for segment in scene.segments])
    assert torch.equal(scene.attend(backend), alone)
