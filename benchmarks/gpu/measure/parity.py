"""Logits of trunk, router and experts on a device against those of transformers on the same device.

fp32 must agree up to the order of summation. bf16 rounds at every product, so there the distance from transformers'
fp32 logits is what counts: ours must not be much further from them than transformers' own bf16 logits are.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from model.attention.attention import backends
from model.checkpoint.weights import torch_dtype
from tests.checkpoints import tiny, write
from tests.logits import MakeBackend, chunked_logits, load_transformers

HEADS = {"1:1": (4, 4), "4:1": (8, 2), "8:1": (8, 1)}  # query heads per KV head
WINDOWS = (None, 24)
HOW = {"prefill": (10**6,), "chunked prefill": (7, 40, 13), "paged decode": (30, 1)}
TEXT_LENGTHS = (70, 33, 52)
HEAD_DIM = 64  # one that every backend knows
_FP32_SHARE = 1e-4  # of the largest logit
_BF16_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    heads: str
    window: int | None
    how: str
    dtype: str
    page_size: int
    backend: str

    @property
    def label(self) -> str:
        """For a reader."""
        window = "no window" if self.window is None else f"window {self.window}"
        return f"heads {self.heads}, {window}, {self.how}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far a case is from transformers, as a share of what is allowed: up to 1 is right."""

    case: Case
    distance: float

    @property
    def right(self) -> bool:
        """Whether it holds; NaN does not."""
        return self.distance <= 1.0


class Oracle:
    """Checkpoints under a folder, and what transformers says of each on a device."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Three texts, longer than the window."""
        rng = random.Random(7)
        self.folder, self.device = folder, device
        self.texts = [[rng.randrange(97) for _ in range(length)] for length in TEXT_LENGTHS]
        self._logits: dict[tuple[Path, str], torch.Tensor] = {}

    def checkpoint(self, heads: str, window: int | None) -> Path:
        """A tiny one."""
        query, kv = HEADS[heads]
        folder = self.folder / f"{query}-{kv}-{window}"
        if not folder.exists():
            sizes = {"num_attention_heads": query, "num_key_value_heads": kv, "head_dim": HEAD_DIM}
            write(folder, tiny(sliding_window=window, **sizes))
        return folder

    def logits(self, folder: Path, dtype: str) -> torch.Tensor:
        """transformers' logits at every position of all texts, on the host."""
        if (folder, dtype) not in self._logits:
            model = load_transformers(folder, torch_dtype(dtype)).to(self.device)
            texts = [torch.tensor([text], device=self.device) for text in self.texts]
            with torch.inference_mode():
                self._logits[folder, dtype] = torch.cat([model(text).logits[0].float().cpu() for text in texts])
        return self._logits[folder, dtype]

    def compare(self, case: Case) -> Verdict:
        """Run a case."""
        folder = self.checkpoint(case.heads, case.window)
        found = chunked_logits(
            folder,
            self.texts,
            [HOW[case.how]] * len(self.texts),
            case.dtype,
            self.device.type,
            case.page_size,
            self._maker(case),
        )
        ours, exact = torch.cat(found), self.logits(folder, "float32")
        if case.dtype == "float32":
            return Verdict(case, float((ours - exact).abs().max() / exact.abs().max()) / _FP32_SHARE)
        theirs = (self.logits(folder, case.dtype) - exact).abs().mean()
        return Verdict(case, float((ours - exact).abs().mean() / theirs) / _BF16_RATIO)

    def _maker(self, case: Case) -> MakeBackend:
        def make(window: int | None, page_size: int) -> object:
            offered = backends(torch_dtype(case.dtype), self.device, HEAD_DIM, window, page_size)
            return next(backend for backend in offered if backend.name == case.backend)

        return make  # type: ignore[return-value]


def cases(device: torch.device, full: bool = True) -> Iterator[Case]:
    """Every combination that this machine offers, those of one dtype, page size and backend together; not `full`, a
    few of them.
    """
    for dtype, page_sizes in (("float32", (4, 16, 256)), ("bfloat16", (16, 256))):
        for page_size in page_sizes if full else page_sizes[:1]:
            for backend in backends(torch_dtype(dtype), device, HEAD_DIM, None, page_size):
                for heads in HEADS if full else ("4:1",):
                    for window in WINDOWS:
                        for how in HOW:
                            yield Case(heads, window, how, dtype, page_size, backend.name)
