"""The diagram that the model's documentation promises: generation time by sequence length, one line per backend.

A prompt is prefilled in one chunk, then tokens are generated one after the other, through a trunk of two layers with
Mixtral's shapes and random weights. Its experts answer zeros, so that only attention differs between the lines.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.eager import EagerBackend
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from benchmarks.gpu.measure.scene import MIXTRAL, TINY, Scene
from benchmarks.gpu.measure.timing import median_ms
from model.attention.attention import AttentionBackend, backends
from model.attention.kv_cache import PagedKVCache
from model.attention.ragged import RaggedBatch, Segment
from model.config import MixtralConfig
from model.trunk import Forward, Trunk

TITLE = "generation time by sequence length, eager, SDPA and flash-attention"
PICTURE = "attention.png"

_TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 1e-5}  # ||out - exact|| / ||exact||
_CHECKED = {True: [(0, 300), (0, 1), (700, 1), (255, 33), (40, 1)], False: [(0, 9), (21, 1), (5, 6), (0, 1), (40, 1)]}
_CHECKED_WINDOW = {True: 100, False: 8}
_COLOURS = {
    "eager": "#7a7a7a",
    "sdpa": "#0b6fb8",
    "torch_varlen": "#c77700",
    "flash_attn": "#1b8a3a",
    "flash_attn_3": "#8e3ab0",
}


@dataclass(frozen=True, slots=True)
class _Sizes:
    config: MixtralConfig
    dtype: torch.dtype
    lengths: tuple[int, ...]  # of the prompt
    window: int
    page_size: int  # one that suits every backend
    tokens: int  # generated after the prompt
    repeat: int


_FULL = _Sizes(MIXTRAL, torch.bfloat16, (512, 1024, 2048, 4096, 8192, 16384), 4096, 256, 32, 3)
_SMALL = _Sizes(TINY, torch.float32, (16, 32), 8, 16, 4, 1)


@dataclass(frozen=True, slots=True)
class _Point:
    backend: str
    window: int | None
    length: int
    milliseconds: float


@torch.inference_mode()
def run(bench: Bench) -> None:
    """Check every backend against eager attention in fp64, then time all of them, the short lengths first."""
    sizes = _FULL if bench.full else _SMALL
    if bench.device.type != "cuda":
        bench.findings.note("flash-attention is left out: no CUDA device")
    bench.findings.fact(
        "backends, fastest first, then the textbook", ", ".join(b.name for b in _backends(sizes, None, bench))
    )
    _check(sizes, bench)
    trunk = _trunk(sizes, bench.device)
    pages = -(-(sizes.lengths[-1] + sizes.tokens) // sizes.page_size)
    cache = PagedKVCache(sizes.config, pages, sizes.page_size, sizes.dtype, bench.device)
    points: list[_Point] = []
    seconds: dict[tuple[str, int | None], float] = {}
    for length in sizes.lengths:
        generation = _Generation.build(trunk, cache, length, sizes.tokens)
        for window in (None, sizes.window):
            for backend in _backends(sizes, window, bench):
                where = f"{backend.name} at {length}" + (f" with a window of {window}" if window else "")
                wanted = 1.0 + 4 * seconds.get((backend.name, window), 0.0)  # twice the length, at most four times
                if bench.left() < wanted:
                    bench.findings.note(f"left out: {where} ({bench.left():.0f} s left, may take {wanted:.0f} s)")
                    continue
                begin = time.monotonic()
                _measure(backend, window, generation, sizes, points, bench)
                bench.free()
                seconds[backend.name, window] = time.monotonic() - begin
        _draw(points, sizes, bench)


def _backends(sizes: _Sizes, window: int | None, bench: Bench) -> list[AttentionBackend]:
    """The served backends, fastest first, and eager attention last, because it may exhaust the memory."""
    served = backends(sizes.dtype, bench.device, sizes.config.head_dim, window, sizes.page_size)
    return [*served, EagerBackend(window, sizes.page_size)]


def _check(sizes: _Sizes, bench: Bench) -> None:
    """Compare on a batch of prompts, later chunks and decodes."""
    c = sizes.config
    scene = Scene.build(c, _CHECKED[bench.full], sizes.page_size, sizes.dtype, bench.device)
    exact = scene.widened(c)
    for window in (None, _CHECKED_WINDOW[bench.full]):
        wanted_THd = exact.attend(EagerBackend(window, sizes.page_size))
        for backend in _backends(sizes, window, bench):
            name = f"{backend.name} agrees with eager attention in fp64, {_named(window)}"
            try:
                found_THd = scene.attend(backend).double()
                error = float((found_THd - wanted_THd).norm() / wanted_THd.norm())
                bench.findings.check(name, error <= _TOLERANCE[sizes.dtype], f"relative error {error:.1e}")
            except MISHAPS as mishap:
                bench.findings.check(name, False, reason(mishap))


# ---- one measurement ----


def _measure(
    backend: AttentionBackend,
    window: int | None,
    generation: "_Generation",
    sizes: _Sizes,
    points: list[_Point],
    bench: Bench,
) -> None:
    """One row, and its point in the diagram; what failed says why in the place of its number."""
    cells: dict[str, object] = {"prompt": generation.length, "window": window or "none", "backend": backend.name}
    column = "prefill ms"
    try:
        prefill = median_ms(lambda: generation.step(generation.prompt, backend), bench, sizes.repeat, 1)
        cells[column] = round(prefill, 2)
        column = "ms per token"
        decode = median_ms(lambda: generation.decode(backend), bench, sizes.repeat, 1)
        cells[column] = round(decode / sizes.tokens, 3)
        column = "of it to prepare"
        prepare = median_ms(lambda: backend.prepare(generation.tokens[-1]), bench, 2 * sizes.repeat, 1)
        cells[column] = round(prepare, 3)
        cells[f"prompt and {sizes.tokens} tokens, ms"] = round(prefill + decode, 1)
        points.append(_Point(backend.name, window, generation.length, prefill + decode))
    except MISHAPS as mishap:
        cells[column] = reason(mishap)
    bench.findings.row(f"generation of one sequence, {sizes.config.num_hidden_layers} layers", cells)


@dataclass(frozen=True, slots=True)
class _Generation:
    """One sequence: its prompt, and each token after it as a batch of its own.

    Batches are laid out beforehand, since that costs every backend the same; what a backend prepares for a step is
    part of the step. Every step's token is read back before the next step starts, as a server must.
    """

    trunk: Trunk
    cache: PagedKVCache
    prompt: RaggedBatch
    tokens: tuple[RaggedBatch, ...]

    @classmethod
    def build(cls, trunk: Trunk, cache: PagedKVCache, length: int, count: int) -> "_Generation":
        """Token ids do not matter to the time, so they are made up; the pages are not in order."""
        pages = list(reversed(range(-(-(length + count) // cache.page_size))))
        vocabulary, device = trunk.config.vocab_size, trunk.embedding.device

        def batch(start: int, rows: int) -> RaggedBatch:
            ids = [(start + i) * 7919 % vocabulary for i in range(rows)]
            return RaggedBatch.build([Segment(0, rows, start, pages)], ids, [rows - 1], cache.page_size, device)

        return cls(trunk, cache, batch(0, length), tuple(batch(length + i, 1) for i in range(count)))

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return len(self.prompt.token_ids_T)

    def step(self, batch: RaggedBatch, backend: AttentionBackend) -> list[int]:
        """Run a batch and read back its likeliest token."""
        logits_RV = _without_experts(self.trunk.forward(batch, self.cache, backend))
        return [int(token) for token in logits_RV.argmax(-1).tolist()]

    def decode(self, backend: AttentionBackend) -> None:
        """All tokens after the prompt."""
        for batch in self.tokens:
            self.step(batch, backend)


def _without_experts(forward: Forward) -> torch.Tensor:
    """Drive a trunk to its end as `ExpertRouter.run` does, with experts that answer zeros."""
    try:
        dispatch = next(forward)
        while True:
            dispatch = forward.send(torch.zeros_like(dispatch.x_TD))
    except StopIteration as end:
        logits_RV: torch.Tensor = end.value
        return logits_RV


def _trunk(sizes: _Sizes, device: torch.device) -> Trunk:
    """Random weights, made on the device; all layers have the same ones."""
    c, source = sizes.config, torch.Generator(device).manual_seed(1)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=sizes.dtype, device=device, generator=source).mul_(0.02)

    ones_D = torch.ones(c.hidden_size, dtype=sizes.dtype, device=device)
    layer = {
        "input_layernorm": ones_D,
        "self_attn.q_proj": weight(c.num_attention_heads * c.head_dim, c.hidden_size),
        "self_attn.k_proj": weight(c.num_key_value_heads * c.head_dim, c.hidden_size),
        "self_attn.v_proj": weight(c.num_key_value_heads * c.head_dim, c.hidden_size),
        "self_attn.o_proj": weight(c.hidden_size, c.num_attention_heads * c.head_dim),
        "post_attention_layernorm": ones_D,
        "block_sparse_moe.gate": weight(c.num_local_experts, c.hidden_size),
    }
    tensors = {f"model.layers.{i}.{k}.weight": v for i in range(c.num_hidden_layers) for k, v in layer.items()}
    tensors["model.embed_tokens.weight"] = weight(c.vocab_size, c.hidden_size)
    tensors["lm_head.weight"] = weight(c.vocab_size, c.hidden_size)
    tensors["model.norm.weight"] = ones_D
    return Trunk(c, tensors)


# ---- the diagram ----


def _draw(points: Iterable[_Point], sizes: _Sizes, bench: Bench) -> None:
    """Replace the picture by one of all that is known so far."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        bench.findings.note("no diagram: matplotlib is not installed")
        return
    points = list(points)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, window in zip(figure.subplots(1, 2, sharey=True), (None, sizes.window), strict=True):
        for name in dict.fromkeys(p.backend for p in points):
            line = [(p.length, p.milliseconds) for p in points if (p.backend, p.window) == (name, window)]
            if line:
                axes.plot(*zip(*line, strict=True), marker="o", label=name, color=_COLOURS.get(name))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(sizes.lengths, [str(length) for length in sizes.lengths])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("tokens of the prompt")
        axes.set_title(_named(window))
        axes.grid(True, which="both", alpha=0.25)
        if axes.lines:
            axes.legend()
    figure.axes[0].set_ylabel(f"prompt and {sizes.tokens} tokens, ms")
    layers = sizes.config.num_hidden_layers
    figure.suptitle(
        f"Generation without experts, {layers} layers of Mixtral 8x7B's shapes" if bench.full else "Rehearsal"
    )
    beside = bench.out / f".{PICTURE}.{os.getpid()}"
    figure.savefig(beside, format="png", dpi=140)
    os.replace(beside, bench.out / PICTURE)


def _named(window: int | None) -> str:
    return f"sliding window of {window}" if window else "without a window"
