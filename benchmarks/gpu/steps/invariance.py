"""Which results are the same to the bit alone and in a batch on this device, and what a fixed tile of rows would cost.

The promise of identical tokens rests on it (docs/adr/0004-token-identity.md). The part for serving in bfloat16
comes first, then the other dtypes and cuBLAS's switches.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.eager import EagerBackend
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from benchmarks.gpu.measure.products import SETTINGS, Product, random_rows, reduced_precision, shapes
from benchmarks.gpu.measure.row_counts import TILE, Rows, kinds, same, spans
from benchmarks.gpu.measure.scene import MIXTRAL, TINY, Scene
from model.attention.attention import AttentionBackend, backends, choose_backend
from model.attention.ragged import Segment
from model.config import MixtralConfig
from model.routing import route
from model.trunk import rms_norm

TITLE = "which results are the same alone and in a batch"
PRODUCTS, TILES, ATTENTION, FUNCTIONS = (
    "products: which row counts give a row the same bits",
    f"products in tiles of {TILE} rows: same bits in any place among any rows, and time over the plain product's",
    "attention: sequences with the same bits as in a batch of 64 decodes, or of all prompts",
    "other functions: which row counts give a row the same bits",
)

# Every count up to a tile, and some that a step has when prompts are in it.
_COUNTS = {True: (*range(1, TILE + 1), 128, 256, 512, 1024), False: (*range(1, TILE + 1), 128)}
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_SERVED = torch.bfloat16
_DECODES, _LONGEST, _PAGE, _WINDOW = 64, {True: 4000, False: 60}, {True: 256, False: 16}, {True: 1024, False: 8}
_PROMPTS = {
    True: [(0, 700), (0, 33), (512, 512), (1000, 64), (0, 1500), (300, 2), (0, 256), (100, 17)],
    False: [(0, 9), (0, 2), (5, 6), (30, 12)],
}


@dataclass(slots=True)
class _Verdict:
    """The findings for the last sentence; of the dtype that is served."""

    seams: list[str] = field(default_factory=list)
    tile_seams: list[str] = field(default_factory=list)
    tile_ratios: list[float] = field(default_factory=list)
    missing: bool = False  # something was left out, or failed

    def short_of_time(self, what: str, bench: Bench) -> bool:
        """Whether to stop; says so."""
        if bench.left() > 2:
            return False
        bench.findings.note(f"left out: {what} ({bench.left():.0f} s left)")
        self.missing = True
        return True

    def sentence(self, device: str) -> str:
        """The promise that holds here."""
        looked = "of what was looked at " if self.missing else ""
        if not self.seams:
            return (
                f"On this device ({device}) nothing {looked}that serving in bfloat16 computes depends on how many rows "
                "are computed together, so identical tokens alone and in a batch may be promised here too."
            )
        tile = f"; a tile of {TILE} rows would leave a seam in {', '.join(self.tile_seams)}"
        if self.tile_ratios and not self.tile_seams:
            low, high = min(self.tile_ratios), max(self.tile_ratios)
            tile = f"; a tile of {TILE} rows would mend the products, at {low:.2f} to {high:.2f} times their time"
        return (
            f"On this device ({device}) bfloat16 gives a row other bits in another batch {looked}in: "
            f"{'; '.join(self.seams)}; so identical tokens may be promised only for the same batches"
            + (tile if self.tile_ratios else "")
            + "."
        )


@torch.inference_mode()
def run(bench: Bench) -> None:
    """See the module; ends with a sentence on the promise."""
    config, verdict, cuda = (MIXTRAL if bench.full else TINY), _Verdict(), bench.device.type == "cuda"
    torch.set_float32_matmul_precision("highest")  # torch's default: fp32 without TF32
    settings = list(SETTINGS) if cuda else ["allowed"]
    _products(config, _SERVED, settings[0], verdict, bench)
    _attention(config, verdict, bench)
    _functions(config, verdict, bench)
    name = torch.cuda.get_device_name(bench.device) if cuda else "CPU"
    bench.findings.fact("so far", verdict.sentence(name))  # in case that the rest is cut off
    switched = {setting: _Verdict() for setting in settings[1:]}
    for setting, other in switched.items():
        _products(config, _SERVED, setting, other, bench)
    for setting in settings:
        _products(config, torch.float16, setting, _Verdict(), bench)
    _products(config, torch.float32, settings[0], _Verdict(), bench)
    mended = [setting for setting, other in switched.items() if not other.seams and not other.missing]
    cure = f" No product has a seam with reduced precision {' or '.join(mended)}." if mended else ""
    bench.findings.note(verdict.sentence(name) + cure)


# ---- matrix products ----


def _products(config: MixtralConfig, dtype: torch.dtype, setting: str, verdict: _Verdict, bench: Bench) -> None:
    which = f"{_named(dtype)} products"
    if dtype != torch.float32 and bench.device.type == "cuda":
        which += f", reduced precision {setting}"
    repeatable = []
    for name, shape in shapes(config).items():
        label = f"{name} {shape[0]}x{shape[1]}"
        if verdict.short_of_time(f"{which}, from {label} on", bench):
            break
        try:
            with reduced_precision(setting, bench.device):
                repeatable.append(_product(shape, dtype, {"of": which, "product": label}, verdict, bench))
        except MISHAPS as mishap:
            bench.findings.row(PRODUCTS, {"of": which, "product": label, "results": reason(mishap)})
            verdict.missing = True
        bench.free()
    if repeatable:
        made = f"{sum(repeatable)} of {len(repeatable)}"
        bench.findings.check(f"{which}: the same call twice gives the same bits", all(repeatable), made)


def _product(
    shape: tuple[int, int], dtype: torch.dtype, label: dict[str, str], verdict: _Verdict, bench: Bench
) -> bool:
    """A row in each of two tables; whether the product is the same when it is made twice."""
    counts = _COUNTS[bench.full]
    product = Product.build(shape, counts[-1], dtype, bench.device)
    x_RD = product.x_RD
    repeatable = same(product.plain(x_RD[:TILE]), product.plain(x_RD[:TILE]))
    groups = kinds(product.plain, x_RD, counts)
    among = next(group for group in groups if TILE in group)
    served = _seam(kinds(product.served, x_RD, counts), counts)
    cells = {**_cells(groups, counts), f"not as among {TILE}": spans([n for n in counts if n not in among], counts)}
    bench.findings.row(PRODUCTS, {**label, **cells, "by model.linear not as alone": served or "none"})
    if served:
        verdict.seams.append(f"{label['product']} at {served} rows")
    if bench.device.type == "cpu" and dtype == torch.float32:  # promised of matrices of any size
        name = f"model.linear: {label['of']}, {label['product']}: a row is the same alone and among others"
        bench.findings.check(name, not served, served)
    seam, times = product.tile_seam(), product.tile_ms(bench)
    verdict.tile_seams += [label["product"]] if seam else []
    verdict.tile_ratios += [tiled / plain for plain, tiled in times.values()]
    ratios = {f"tiled/plain at {rows}": round(tiled / plain, 2) for rows, (plain, tiled) in times.items()}
    plains = {f"plain us at {rows}": round(1e3 * plain, 1) for rows, (plain, _) in times.items()}
    bench.findings.row(TILES, {**label, "same bits": f"no: {seam}" if seam else "yes", **ratios, **plains})
    return repeatable


def _cells(groups: list[list[int]], counts: Sequence[int]) -> dict[str, object]:
    agree = " / ".join(spans(group, counts) for group in groups)
    return {"results": len(groups), "row counts that agree": agree, "not as alone": _seam(groups, counts) or "none"}


def _seam(groups: list[list[int]], counts: Sequence[int]) -> str:
    """At which row counts a row does not get what it gets alone; empty where it always does."""
    return "" if len(groups) == 1 else spans([n for n in counts if n not in groups[0]], counts)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- attention ----


def _attention(config: MixtralConfig, verdict: _Verdict, bench: Bench) -> None:
    rng, page_size = random.Random(3), _PAGE[bench.full]
    decodes = [(rng.randrange(_LONGEST[bench.full]), 1) for _ in range(_DECODES)]
    for window in (None, _WINDOW[bench.full]):
        where = (_SERVED, bench.device, config.head_dim, window, page_size)
        served = choose_backend(*where).name
        for backend in (*backends(*where), EagerBackend(window, page_size)):
            label = {"backend": backend.name, "window": str(window or "none")}
            if verdict.short_of_time(f"attention from {backend.name} on, window {window or 'none'}", bench):
                return
            seams = list[str]()
            try:
                scene = Scene.build(config, decodes + _PROMPTS[bench.full], page_size, _SERVED, bench.device)
                seams = _attended(scene, backend, label, bench)
            except MISHAPS as mishap:
                bench.findings.row(ATTENTION, {**label, "decodes alone": reason(mishap)})
                verdict.missing |= backend.name == served
            bench.free()
            if backend.name == served and seams:
                verdict.seams.append(f"attention by {backend.name}, window {window or 'none'} ({', '.join(seams)})")


def _attended(scene: Scene, backend: AttentionBackend, label: dict[str, str], bench: Bench) -> list[str]:
    """A row of the table; the ways of sharing a batch that made a difference."""
    decodes, prompts = scene.segments[:_DECODES], scene.segments[_DECODES:]
    together_THd = scene.attend(backend, [decodes, prompts])
    again_THd = scene.attend(backend, [decodes, prompts])
    name = f"attention by {backend.name}, window {label['window']}: the same call twice gives the same bits"
    bench.findings.check(name, same(together_THd, again_THd))
    alone_THd = scene.attend(backend, [[s] for s in scene.segments])
    eights_THd = scene.attend(backend, [decodes[i : i + 8] for i in range(0, _DECODES, 8)])
    mixed_THd = scene.attend(backend)
    ways = {
        "decodes alone": (alone_THd, decodes),
        "decodes in eights": (eights_THd, decodes),
        "decodes beside prompts": (mixed_THd, decodes),
        "prompts alone": (alone_THd, prompts),
        "prompts beside decodes": (mixed_THd, prompts),
    }
    cells, seams = dict[str, object](label), []
    for way, (found_THd, segments) in ways.items():
        equal = _equal(found_THd, together_THd, segments)
        cells[way] = f"{equal} of {len(segments)}"
        seams += [way] if equal < len(segments) else []
    halves_THd = scene.attend(backend, [[half] for s in prompts for half in _halves(s)])
    cells["prompts in two chunks"] = f"{_equal(halves_THd, together_THd, prompts)} of {len(prompts)}"
    bench.findings.row(ATTENTION, cells)
    return seams


def _equal(a_THd: torch.Tensor, b_THd: torch.Tensor, segments: Sequence[Segment]) -> int:
    return sum(same(*(x[s.row : s.row + s.length] for x in (a_THd, b_THd))) for s in segments)


def _halves(s: Segment) -> list[Segment]:
    """Example: rows [10, 15) at start 3 become rows [10, 12) at 3 and [12, 15) at 5."""
    half = s.length // 2
    return [replace(s, length=half), replace(s, row=s.row + half, length=s.length - half, start=s.start + half)]


# ---- the rest ----


def _functions(config: MixtralConfig, verdict: _Verdict, bench: Bench) -> None:
    counts = _COUNTS[bench.full]
    for dtype in _DTYPES:
        for name, (work, width) in _works(config, dtype, bench).items():
            label = {"dtype": _named(dtype), "function": name}
            if verdict.short_of_time(f"functions from {_named(dtype)} {name} on", bench):
                return
            try:
                groups = kinds(work, random_rows(counts[-1], width, dtype, bench.device), counts)
            except MISHAPS as mishap:
                bench.findings.row(FUNCTIONS, {**label, "results": reason(mishap)})
                verdict.missing |= dtype == _SERVED
                continue
            bench.findings.row(FUNCTIONS, {**label, **_cells(groups, counts)})
            if dtype == _SERVED and len(groups) > 1:
                verdict.seams.append(f"{name} at {_seam(groups, counts)} rows")


def _works(config: MixtralConfig, dtype: torch.dtype, bench: Bench) -> dict[str, tuple[Rows, int]]:
    """Each function of rows, and the width of its rows."""
    scale_D = random_rows(1, config.hidden_size, dtype, bench.device)[0]

    def normed(x_TD: torch.Tensor) -> torch.Tensor:
        return rms_norm(x_TD, scale_D, config.rms_norm_eps)

    def routed(logits_TE: torch.Tensor) -> torch.Tensor:
        experts_TK, weights_TK = route(logits_TE, config.num_experts_per_tok)
        return torch.cat((experts_TK.to(weights_TK.dtype), weights_TK), dim=1)

    def activated(x_RI: torch.Tensor) -> torch.Tensor:
        gate, up = x_RI.chunk(2, dim=-1)
        return F.silu(gate) * up

    return {
        "rms_norm": (normed, config.hidden_size),
        "route: softmax, top-k": (routed, config.num_local_experts),
        "silu(gate) * up": (activated, 2 * config.intermediate_size),
    }
