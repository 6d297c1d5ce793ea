"""Causal grouped-query attention over the paged cache: one small interface, and the choice of a backend.
T: tokens of the batch, H: query heads, N: KV heads, d: head dimension. The sliding window is HF's: query i sees keys j
with i-W < j <= i.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import torch

from model.attention.flash import Flash3Backend, FlashBackend, VarlenBackend, flash_can_serve
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.attention.sdpa import SdpaBackend
from model.config import MixtralConfig

log = logging.getLogger("eightwinds.attention")

_SHORT = 5  # a window so short that a few keys test it
_CLOSE = 5e-2  # a few last bits of bf16 at values around 1; a wrong window or page is off by far more


class AttentionBackend(Protocol):
    """Computes attention: `prepare` is called once a step, `attend` once a layer with its result."""

    name: str
    page_multiple: int  # page_size must be a multiple of this

    def prepare(self, batch: RaggedBatch) -> Any:
        """Masks, offsets and tables that all layers of the step share."""

    def attend(self, q_THd: torch.Tensor, cache: PagedKVCache, layer: int, prepared: Any) -> torch.Tensor:
        """Attention output [T, H, d]; the step's own keys and values are in the cache already."""


Make = Callable[[int | None, int], AttentionBackend]  # window, page size


def choose_backend(
    dtype: torch.dtype, device: torch.device, head_dim: int, window: int | None, page_size: int
) -> AttentionBackend:
    """The fastest backend that runs here and gives the right answer; the log says why faster ones were not chosen."""
    windows = {window, _SHORT} if device.type == "cuda" else {window}  # a long window shows nothing in a few keys
    *fast, plain = _makers(dtype, device, head_dim, page_size)
    for make in fast:
        tried = [fault(make(w, page_size), dtype, device, head_dim, w, page_size) for w in windows]
        if not any(tried):
            return make(window, page_size)
        log.warning("attention by %s is left alone: %s", make(window, page_size).name, next(filter(None, tried)))
    if device.type == "cuda" and (wrong := fault(plain(window, page_size), dtype, device, head_dim, window, page_size)):
        log.error("attention by sdpa, which is the last resort, %s", wrong)
    return plain(window, page_size)


def backends(
    dtype: torch.dtype, device: torch.device, head_dim: int, window: int | None, page_size: int
) -> list[AttentionBackend]:
    """Every installed backend that takes such tensors, fastest first; the last one runs everywhere."""
    return [make(window, page_size) for make in _makers(dtype, device, head_dim, page_size)]


def _makers(dtype: torch.dtype, device: torch.device, head_dim: int, page_size: int) -> list[Make]:
    if device.type == "cuda":
        # On Hopper torch would choose cuDNN's attention, which builds a plan for every new shape, longer than a step
        # takes, and does not promise the same bits twice.
        torch.backends.cuda.enable_cudnn_sdp(False)
    found: list[Make] = []
    for make in (Flash3Backend, FlashBackend, VarlenBackend) if flash_can_serve(dtype, device, head_dim) else ():
        try:
            if page_size % make(None, page_size).page_multiple == 0:
                found.append(make)
        except ImportError as error:
            log.debug("%s: %s", make.name, error)
        except Exception as error:  # a library built for another torch may raise anything on import
            log.warning("attention by %s is left alone: %s: %s", make.name, type(error).__name__, error)
    return [*found, SdpaBackend]


def fault(
    made: AttentionBackend, dtype: torch.dtype, device: torch.device, head_dim: int, window: int | None, page_size: int
) -> str:
    """A backend's fault, or "", by a trial on a few keys: it may be built for another card, or mean another window."""
    chunks, heads = [(0, 7), (page_size - 1, 4), (page_size + 2, 1), (0, 1)], 8
    config = MixtralConfig(num_hidden_layers=1, num_attention_heads=heads, num_key_value_heads=2, head_dim=head_dim)
    pages = -(-max(7, page_size + 3) // page_size)  # of each sequence; their order is scrambled below
    cache = PagedKVCache(config, pages * len(chunks), page_size, torch.float32)
    random = torch.Generator().manual_seed(0)
    for values in (cache.keys, cache.values):
        values.normal_(generator=random)
    segments, row = list[Segment](), 0
    for i, (start, length) in enumerate(chunks):
        segments.append(Segment(row, length, start, range(i, cache.page_count, len(chunks))[::-1]))
        row += length
    q_THd = torch.randn(row, heads, head_dim, generator=random)

    def attended(by: AttentionBackend, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        batch = RaggedBatch.build(segments, [0] * row, [], page_size, device)
        there = PagedKVCache(config, 0, page_size, dtype, device)
        there.keys, there.values = (x.to(dtype).to(device) for x in (cache.keys, cache.values))
        return by.attend(q_THd.to(dtype).to(device), there, 0, by.prepare(batch)).float().cpu()

    try:
        found = attended(made, dtype, device)
    except Exception as error:  # a foreign library may raise anything
        return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    expected = attended(SdpaBackend(window, page_size), torch.float32, torch.device("cpu"))
    furthest = (found - expected).abs().max().item()
    return "" if furthest <= _CLOSE else f"its output is off by {furthest:.2g}"
