"""The time of a decode step's layer on this card, part by part, against what the card could do; and the host's share.

The floor of a part is what it must read and write over the bandwidth of a large copy, or its arithmetic over the rate
of a large matrix product, whichever takes longer. There are as many layers as no cache holds. The head's experts answer
zeros. A layer of the head is the difference between a step through all layers and one through a single layer, so that
embedding and output head are apart from it; attention prepares its tables outside of the clock.

T: rows of the batch, D: hidden size.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from actors.replica import one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.routing.step_counts import StepCounts
from actors.transport.local import LocalTransport
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.decode import DecodeHead, Prepared, random_expert
from benchmarks.gpu.measure.floor import Card, Part
from benchmarks.gpu.measure.host_calls import HostCalls, watched
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from benchmarks.gpu.measure.scene import MIXTRAL, TINY
from benchmarks.gpu.measure.timing import median_ms
from model.config import MixtralConfig
from model.device.host_link import fetch, host_link
from model.trunk import Trunk

TITLE = "a layer of the head and of an expert against the card's floor; what the host does for it"
TIMES, HOST = "Microseconds by part, and what the card allows", "What the host does in a step of the head"

_WAITS_A_STEP = 2  # besides one in each layer


@dataclass(frozen=True, slots=True)
class _Sizes:
    config: MixtralConfig
    dtype: torch.dtype
    rows: tuple[int, ...]
    watched_rows: tuple[int, ...]
    context: int  # keys of each sequence, the step's own included
    page_size: int
    square: int  # side of the large matrix product
    repeat: int


_FULL = _Sizes(
    replace(MIXTRAL, num_hidden_layers=4), torch.bfloat16, (1, 8, 64, 256), (1, 64), 1024, 256, 8192, repeat=30
)
_SMALL = _Sizes(TINY, torch.float32, (1, 4), (4,), 16, 16, 64, repeat=9)


@torch.inference_mode()
def run(bench: Bench) -> None:
    """Time an expert and the head at every number of rows, few rows first; then look at what the host does."""
    sizes = _FULL if bench.full else _SMALL
    if bench.device.type == "cpu":
        torch.set_num_threads(1)  # a rehearsal's products are so small that threads only wait for each other
    card = Card.measured(sizes.square, sizes.dtype, bench)
    for what, measure in (("expert", _expert), ("head", _head)):
        if bench.left() < 5:
            bench.findings.note(f"left out: {what} ({bench.left():.0f} s left)")
            continue
        _tried(lambda measure=measure: measure(sizes, card, bench), bench, what, "any")  # type: ignore[misc]
        bench.free()


def _tried(work: Callable[[], None], bench: Bench, part: str, rows: object) -> None:
    """A part that fails says why in a row of its own, and the others go on."""
    try:
        work()
    except MISHAPS as mishap:
        bench.findings.row(TIMES, {"part": part, "rows": rows, "us": reason(mishap)})


def _in_time(rows: Sequence[int], what: str, bench: Bench) -> Iterator[int]:
    for index, count in enumerate(rows):
        if bench.left() < 4:
            left_out = ", ".join(map(str, rows[index:]))
            bench.findings.note(f"left out: {what} at {left_out} rows ({bench.left():.0f} s left)")
            return
        yield count


# ---- against the floor ----


def _expert(sizes: _Sizes, card: Card, bench: Bench) -> None:
    c, on_gpu = sizes.config, bench.device.type == "cuda"
    weights = random_expert(c, sizes.dtype, bench.device)
    layers, matrices = range(c.num_hidden_layers), weights.nbytes() / c.num_hidden_layers

    def measure(rows: int) -> None:
        x_RD = torch.randn(rows, c.hidden_size, dtype=sizes.dtype, device=bench.device)

        def step() -> None:
            for layer in layers:
                weights.forward(layer, x_RD)

        flops = 2 * rows * matrices / sizes.dtype.itemsize
        us, host_us = (clock(step, sizes, bench) / len(layers) for clock in (_device_us, _host_us))
        part = Part("expert, a layer", rows, matrices + 2 * x_RD.nbytes, flops)
        bench.findings.row(TIMES, part.row(card, us, host_us if on_gpu else None))

    for rows in _in_time(sizes.rows, "expert", bench):
        _tried(lambda rows=rows: measure(rows), bench, "expert, a layer", rows)  # type: ignore[misc]


def _head(sizes: _Sizes, card: Card, bench: Bench) -> None:
    head = DecodeHead(sizes.config, sizes.dtype, bench.device, max(sizes.rows), sizes.context, sizes.page_size)
    bench.findings.fact("attention by", head.attention.name)
    for rows in _in_time(sizes.rows, "head", bench):
        _tried(lambda rows=rows: _head_at(rows, head, sizes, card, bench), bench, "head", rows)  # type: ignore[misc]
        bench.free()
    for rows in _in_time(sizes.watched_rows, "what the host does", bench):
        try:
            _host(rows, head, bench)
        except MISHAPS as mishap:
            bench.findings.note(f"what the host does in a step of {rows} rows is not known: {reason(mishap)}")


def _head_at(rows: int, head: DecodeHead, sizes: _Sizes, card: Card, bench: Bench) -> None:
    c, item, batch = sizes.config, sizes.dtype.itemsize, head.batch(rows)
    on_gpu = bench.device.type == "cuda"
    prepared = Prepared(head.attention, batch)
    zeros_TD = torch.zeros(rows, c.hidden_size, dtype=sizes.dtype, device=bench.device)

    def times(trunk: Trunk) -> tuple[float, float]:
        def step() -> torch.Tensor:
            return head.step(trunk, batch, prepared, zeros_TD)

        return _device_us(step, sizes, bench), _host_us(step, sizes, bench)

    deep, flat = times(head.deep), times(head.flat)
    us, host_us = ((d - f) / (c.num_hidden_layers - 1) for d, f in zip(deep, flat, strict=True))
    keys = 2 * rows * sizes.context * c.num_key_value_heads * c.head_dim * item  # and values
    moved = head.layer_bytes + keys + 4 * zeros_TD.nbytes  # rows in, rows out, to the experts and back
    scores = 4 * rows * sizes.context * c.num_attention_heads * c.head_dim
    layer = Part("head, a layer", rows, moved, 2 * rows * head.layer_bytes / item + scores)
    bench.findings.row(TIMES, layer.row(card, us, host_us if on_gpu else None))

    matrix = head.flat.lm_head
    moved = matrix.nbytes + 2 * zeros_TD.nbytes + 4 * rows * c.vocab_size  # logits are in fp32
    ends = Part("head, embedding and output", rows, moved, 2 * rows * matrix.nbytes // item)
    bench.findings.row(TIMES, ends.row(card, flat[0] - us, flat[1] - host_us if on_gpu else None))

    tables = 1e3 * median_ms(lambda: head.attention.prepare(batch), bench, repeat=3, warmup=1)
    bench.findings.row(TIMES, {"part": "head, attention's tables of a step", "rows": rows, "us": round(tables, 1)})


def _device_us(work: Callable[[], object], sizes: _Sizes, bench: Bench) -> float:
    return 1e3 * median_ms(work, bench, sizes.repeat)


def _host_us(work: Callable[[], object], sizes: _Sizes, bench: Bench) -> float:
    """Until all is asked of a device that has nothing else to do."""
    times = []
    for _ in range(sizes.repeat):
        bench.synchronize()
        started = time.perf_counter()
        work()
        times.append(1e6 * (time.perf_counter() - started))
    bench.synchronize()
    return statistics.median(times)


# ---- the host ----


class _AnswersAtOnce:
    """An expert whose rows are back on the host as soon as they are sent."""

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        """The same rows."""
        return rows_RD


def _host(rows: int, head: DecodeHead, bench: Bench) -> None:
    """A whole step as the head does it, from the batch's layout to its tokens; all but the experts is real."""
    layers, experts = head.config.num_hidden_layers, head.config.num_local_experts
    replicas, link = Replicas(one_each([_AnswersAtOnce()] * experts)), host_link(bench.device)
    router = ExpertRouter(LocalTransport(), replicas, link=link)

    def step(trunk: Trunk) -> None:
        forward = trunk.forward(head.batch(rows), head.cache, head.attention)
        fetch(router.run([forward], StepCounts())[0].argmax(dim=-1))

    ms = median_ms(lambda: step(head.deep), bench, repeat=10)
    watched(lambda: step(head.flat), bench)  # the first time the profiler makes itself ready
    deep, flat = watched(lambda: step(head.deep), bench), watched(lambda: step(head.flat), bench)

    def split(name: str, count: Callable[[HostCalls], int]) -> dict[str, object]:
        a_layer = (count(deep) - count(flat)) / (layers - 1)
        return {f"{name} a layer": round(a_layer, 1), f"{name} besides": round(count(flat) - a_layer, 1)}

    cells: dict[str, object] = {"rows": rows, "layers": layers, "step ms": round(ms, 2)}
    if bench.device.type != "cuda":
        bench.findings.row(HOST, cells | split("aten operators", lambda calls: calls.operators))
        bench.findings.note("left out: launches, copies and waits, since there is no CUDA device")
        return
    if not deep.launches:
        bench.findings.note(f"the profiler saw no launch of a kernel: {deep.told() or 'no call of CUDA at all'}")
        return
    cells |= split("launches", lambda calls: calls.launches) | split("copies", lambda calls: calls.copies)
    cells |= split("waits", lambda calls: calls.waits)
    cells |= {"host ms without waiting, under the profiler": round(deep.ms - deep.waiting_ms, 2)}
    bench.findings.row(HOST, cells)
    bench.findings.fact(f"calls of CUDA in a step of {rows} rows through {layers} layers", deep.told())
    most = layers + _WAITS_A_STEP
    name = f"the host waits at most once a layer and {_WAITS_A_STEP} times a step, at {rows} rows"
    bench.findings.check(name, deep.waits <= most, f"{deep.waits} times in {layers} layers")
