"""Attention backends against a plain loop in fp64, over ragged batches in scattered pages."""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pytest
import torch

from model.attention import attention, sdpa
from model.attention.attention import AttentionBackend, Make, backends, choose_backend, fault
from model.attention.flash import Flash3Backend, FlashBackend, VarlenBackend
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.attention.sdpa import SdpaBackend, padded
from model.config import MixtralConfig
from tests.checkpoints import tiny
from tests.flash_libraries import documented_varlen_attn, install

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 8
CONFIG = MixtralConfig.from_hf(tiny(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM))
WINDOWS = [None, 1, 2, 5, 8, 100]

# (start, length) of each chunk in the batch
BATCHES = {
    "one token": [(0, 1)],
    "one prompt": [(0, 17)],
    "prompts": [(0, 3), (0, 11), (0, 1), (0, 8)],
    "decode": [(7, 1), (0, 1), (30, 1), (8, 1)],
    "later chunks": [(4, 7), (13, 2), (8, 8)],
    "all together": [(0, 9), (21, 1), (5, 6), (0, 1), (3, 1)],
}


@dataclass
class Scene:
    """A batch whose keys and values are in the cache, and the same as plain tensors per segment."""

    batch: RaggedBatch
    cache: PagedKVCache
    q_THd: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)


def scene(chunks: Sequence[tuple[int, int]], window: int | None, page_size: int) -> Scene:
    """What no query may see holds NaN: rows of other pages, later positions, and those older than the window."""
    rng, source = random.Random(3), torch.Generator().manual_seed(4)
    counts = [-(-(start + length) // page_size) for start, length in chunks]
    pool = rng.sample(range(sum(counts) + 5), sum(counts))
    cache = PagedKVCache(CONFIG, sum(counts) + 5, page_size, torch.float32)
    cache.keys.fill_(torch.nan)
    cache.values.fill_(torch.nan)
    segments = list[Segment]()
    for (start, length), count in zip(chunks, counts, strict=True):
        row = segments[-1].row + segments[-1].length if segments else 0
        segments.append(Segment(row, length, start, [pool.pop() for _ in range(count)]))
    rows = sum(length for _, length in chunks)
    made = Scene(
        RaggedBatch.build(segments, [0] * rows, [], page_size),
        cache,
        torch.randn(rows, HEADS, HEAD_DIM, generator=source),
    )
    for segment in segments:
        k = torch.randn(segment.kv_length, KV_HEADS, HEAD_DIM, generator=source)
        v = torch.randn(segment.kv_length, KV_HEADS, HEAD_DIM, generator=source)
        first = 0 if window is None else max(0, segment.start - window + 1)
        slots = torch.tensor(
            [segment.pages[p // page_size] * page_size + p % page_size for p in range(first, segment.kv_length)]
        )
        cache.write(1, slots, k[first:], v[first:])
        made.keys.append(k)
        made.values.append(v)
    return made


def plain(s: Scene, window: int | None) -> torch.Tensor:
    """One query at a time, in fp64: query i sees keys j with i - window < j <= i."""
    out = torch.zeros_like(s.q_THd, dtype=torch.float64)
    for segment, k, v in zip(s.batch.segments, s.keys, s.values, strict=True):
        for t in range(segment.length):
            i = segment.start + t
            seen = slice(0 if window is None else max(0, i - window + 1), i + 1)
            for head in range(HEADS):
                own = head // (HEADS // KV_HEADS)
                scores = k[seen, own].double() @ s.q_THd[segment.row + t, head].double() / HEAD_DIM**0.5
                out[segment.row + t, head] = scores.softmax(0) @ v[seen, own].double()
    return out


def attend(backend: AttentionBackend, s: Scene) -> torch.Tensor:
    return backend.attend(s.q_THd, s.cache, 1, backend.prepare(s.batch))


@pytest.mark.parametrize("page_size", [1, 3, 16])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", BATCHES)
def test_sdpa_equals_the_plain_loop_and_reads_no_key_out_of_sight(
    name: str, window: int | None, page_size: int
) -> None:
    s = scene(BATCHES[name], window, page_size)
    torch.testing.assert_close(attend(SdpaBackend(window, page_size), s).double(), plain(s, window), rtol=0, atol=1e-6)


MANY = [
    (0, 9),
    (21, 1),
    (5, 6),
    (0, 1),
    (3, 1),
    (62, 1),
    (63, 1),
    (64, 1),
    (127, 1),
    (128, 1),
    (600, 1),
    (90, 3),
    (70, 1),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("window", [None, 5, 100])
def test_batch_mates_do_not_change_a_bit(
    window: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = scene(MANY, window, 3)
    s.cache.keys, s.cache.values, s.q_THd = s.cache.keys.to(dtype), s.cache.values.to(dtype), s.q_THd.to(dtype)
    together = attend(SdpaBackend(window, 3), s)
    monkeypatch.setattr(sdpa, "_STACKED_ROWS", 150)  # two of a stack at a time
    assert torch.equal(attend(SdpaBackend(window, 3), s), together)
    for segment in s.batch.segments:
        rows = slice(segment.row, segment.row + segment.length)
        alone = RaggedBatch.build(
            [Segment(0, segment.length, segment.start, segment.pages)], [0] * segment.length, [], 3
        )
        assert torch.equal(attend(SdpaBackend(window, 3), Scene(alone, s.cache, s.q_THd[rows])), together[rows])


def test_a_stack_whose_order_is_not_the_batchs_gives_each_row_its_own_result() -> None:
    s = scene(BATCHES["decode"], None, 3)
    together = attend(SdpaBackend(None, 3), s)
    turned = replace(s, batch=replace(s.batch, segments=s.batch.segments[::-1]))
    assert len(SdpaBackend(None, 3).prepare(turned.batch)) == 1, "one stack of all of them"
    assert torch.equal(attend(SdpaBackend(None, 3), turned), together)


def test_a_stack_is_padded_a_little() -> None:
    assert [padded(n) for n in (1, 64, 65, 512, 513, 1024, 1025)] == [64, 64, 128, 512, 640, 1024, 1280]
    sizes = [padded(n) for n in range(1, 5000)]
    assert all(n <= size < n + max(64, n / 4) for n, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)


@pytest.fixture
def documented(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


MAKERS: dict[str, Make] = {
    "flash-attn 2": FlashBackend,
    "FlashAttention-3": Flash3Backend,
    "torch's varlen": VarlenBackend,
}


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", BATCHES)
def test_flash_is_called_for_the_same_result(name: str, window: int | None, maker: str) -> None:
    s = scene(BATCHES[name], window, 4)
    s.cache.keys.nan_to_num_()  # the doubles mask what they read, as the kernels do
    s.cache.values.nan_to_num_()
    torch.testing.assert_close(attend(MAKERS[maker](window, 4), s).double(), plain(s, window), rtol=0, atol=1e-6)


def test_torch_2_11_whose_varlen_kernel_knows_fewer_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def older(*args: Any, window_size: tuple[int, int] = (-1, -1)) -> torch.Tensor:
        return documented_varlen_attn(*args, window_size=window_size, enable_gqa=True, num_splits=1)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", older)
    s = scene(BATCHES["all together"], 5, 4)
    torch.testing.assert_close(attend(VarlenBackend(5, 4), s).double(), plain(s, 5), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize("maker", MAKERS)
def test_flash_gives_rows_that_are_apart_in_the_batch_their_own(maker: str) -> None:
    s = scene([(3, 1), (0, 4), (8, 1), (2, 5), (0, 1)], None, 4)
    s.cache.keys.nan_to_num_()
    s.cache.values.nan_to_num_()
    torch.testing.assert_close(attend(MAKERS[maker](None, 4), s).double(), plain(s, None), rtol=0, atol=1e-6)


CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def names(dtype: torch.dtype, device: torch.device, head_dim: int, page_size: int) -> list[str]:
    return [backend.name for backend in backends(dtype, device, head_dim, 4096, page_size)]


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_flash_is_offered_where_it_can_serve(dtype: torch.dtype) -> None:
    assert names(dtype, CUDA, 128, 256) == ["flash_attn_3", "flash_attn", "torch_varlen", "sdpa"]
    assert names(dtype, CUDA, 64, 512) == ["flash_attn_3", "flash_attn", "torch_varlen", "sdpa"]
    assert names(dtype, CUDA, 128, 384) == names(dtype, CUDA, 128, 16) == ["flash_attn_3", "torch_varlen", "sdpa"]


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize(
    ("dtype", "device", "head_dim"),
    [
        (torch.float32, CUDA, 128),
        (torch.bfloat16, CPU, 128),
        (torch.bfloat16, CUDA, 36),
        (torch.bfloat16, CUDA, 512),
    ],
    ids=str,
)
def test_sdpa_alone_is_offered_where_flash_cannot_serve(
    dtype: torch.dtype, device: torch.device, head_dim: int
) -> None:
    assert names(dtype, device, head_dim, 256) == ["sdpa"]


def test_other_packages_of_these_names_are_no_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", ModuleType("flash_attn"))
    monkeypatch.setitem(sys.modules, "flash_attn_interface", ModuleType("flash_attn_interface"))
    assert names(torch.bfloat16, CUDA, 128, 256) == ["torch_varlen", "sdpa"]


def test_absence_of_flash_attention_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flash_attn", "flash_attn_interface", "torch.nn.attention.varlen"):
        monkeypatch.setitem(sys.modules, name, None)  # its import raises ImportError
    assert names(torch.bfloat16, CUDA, 128, 256) == ["sdpa"]


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize("page_size", [1, 4, 16, 256])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_right_has_no_fault(maker: str, dtype: torch.dtype, window: int | None, page_size: int) -> None:
    assert fault(MAKERS[maker](window, page_size), dtype, CPU, 16, window, page_size) == ""


@pytest.mark.usefixtures("documented")
def test_a_window_taken_wrong_is_found_though_the_model_has_a_long_one_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "flash_can_serve", lambda *_: True)
    monkeypatch.setattr(attention, "fault", lambda made, *_: fault(made, torch.bfloat16, CPU, 16, *_[3:]))
    for backend in (Flash3Backend, FlashBackend):
        right = backend.__init__
        monkeypatch.setattr(backend, "__init__", lambda self, w, p, right=right: right(self, w and w + 1, p))
    for window in (None, 4096):
        assert isinstance(choose_backend(torch.bfloat16, CUDA, 16, window, 256), VarlenBackend)


def test_a_library_that_fails_in_any_way_when_it_is_imported_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object, window: int | None, page_size: int) -> None:
        raise OSError("undefined symbol: _ZN2at")

    monkeypatch.setattr(FlashBackend, "__init__", broken)
    assert "flash_attn" not in names(torch.bfloat16, CUDA, 128, 256)
    assert "flash_attn is left alone: OSError: undefined symbol" in caplog.text


@pytest.mark.usefixtures("documented")
def test_a_backend_that_is_wrong_or_cannot_run_here_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first has the window off by one, the second was built for another card; the third is right."""
    monkeypatch.setattr(attention, "flash_can_serve", lambda *_: True)
    monkeypatch.setattr(Flash3Backend, "__init__", lambda self, w, p: FlashBackend.__init__(self, w and w + 1, p))
    monkeypatch.setattr(Flash3Backend, "_attend", FlashBackend._attend)

    def cannot_run(*_: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(FlashBackend, "_attend", cannot_run)
    assert isinstance(choose_backend(torch.bfloat16, CPU, 16, 3, 256), VarlenBackend)
    assert "flash_attn_3 is left alone: its output is off by" in caplog.text
    assert "flash_attn is left alone: RuntimeError: no kernel image is available" in caplog.text


def test_on_a_cpu_sdpa_is_chosen_with_its_window() -> None:
    assert choose_backend(torch.float32, CPU, 8, 7, 16).__dict__ == {"window": 7, "page_size": 16}
