"""What the simulator says of clusters that are not here. Rates are those of data sheets, of which a card is taken to
reach `_READ` and `_COMPUTE`; a head's small operations on a card are `_LAUNCHES` kernels a layer. None of that was
measured on a card. Messages, and the steps' bookkeeping, cost what `check` measured here.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.charts import Point, lines
from benchmarks.report import publish
from benchmarks.simulate.check import KEPT
from benchmarks.simulate.cluster import HeadCosts, Layout, Link, Machine, Seat, Shape
from benchmarks.simulate.events import Work, step_seconds
from model.config import MixtralConfig

_READ, _COMPUTE = 0.8, 0.5
_LAUNCHES, _LAUNCH = 25, 6e-6  # kernels of a layer's attention and gate; seconds
_COPY = 30e-6  # seconds to bring a layer's rows from a card and back
_BOOKKEEPING = 1e-3, 2e-5  # seconds of a step, and of each of its sequences, until the next begins
_CONTEXT = 1000  # keys of a sequence
_DELAY = 50e-6  # of an Ethernet link, one way
_BATCHES = (1, 8, 32, 128)
_SPEEDS = {"1 Gb/s": 1e9, "10 Gb/s": 1e10, "25 Gb/s": 25e9, "100 Gb/s": 1e11}


@dataclass(frozen=True, slots=True)
class Sheet:
    """A card or a CPU host by its data sheet: bytes and bf16 operations a second, memory."""

    name: str
    reads: float
    computes: float
    memory: float
    card: bool = True

    def machine(self) -> Machine:
        """What is expected of it for an expert's call."""
        if self.card:
            return Machine(self.name, _READ * self.reads, _COMPUTE * self.computes, 5 * _LAUNCH + _COPY)
        return Machine(self.name, _READ * self.reads, _COMPUTE * self.computes, 50e-6)

    def head(self, shape: Shape, messages: tuple[float, float]) -> HeadCosts:
        """Its costs as a head."""
        config, machine = shape.config, self.machine()
        output = config.vocab_size * config.hidden_size
        call, byte = messages
        step, sequence = _BOOKKEEPING
        own = _LAUNCHES * _LAUNCH + _COPY if self.card else 150e-6
        return HeadCosts(
            step=step + 2 * output / machine.reads,
            sequence=sequence + 2 * output / machine.computes,
            layer=own + 2 * shape.attention_numbers / machine.reads,
            token=2 * shape.attention_numbers / machine.computes,
            key=shape.key / machine.reads,
            call=call,
            byte=byte,
        )


SHEETS = (
    Sheet("A10G", 600e9, 70e12, 24e9),
    Sheet("L4", 300e9, 121e12, 24e9),
    Sheet("H100", 3.35e12, 989e12, 80e9),
    Sheet("H200", 4.8e12, 989e12, 141e9),
    Sheet("CPU host", 60e9, 1.5e12, 64e9, card=False),  # two channels of DDR5, AVX-512 bf16
)
LARGE = MixtralConfig(
    vocab_size=32768,
    hidden_size=6144,
    intermediate_size=16384,
    num_hidden_layers=56,
    num_attention_heads=48,
    num_key_value_heads=8,
)
MODELS = {"8x7B": MixtralConfig(), "8x22B": LARGE}


def layout(sheet: Sheet, shape: Shape, speed: float, replicas: int = 1, heads: int = 1) -> Layout:
    """A head on a machine of its own, and each replica of an expert on one."""
    kept: dict[str, float] = json.loads(KEPT.read_text(encoding="utf-8"))
    head = sheet.head(shape, (kept["far_message"], kept["far_byte"]))
    experts = range(shape.config.num_local_experts)
    seats = tuple(Seat(sheet.machine(), (expert,)) for _ in range(replicas) for expert in experts)
    return Layout(head, seats, Link(speed / 8, _DELAY), heads)


def shape_of(sheet: Sheet, name: str) -> Shape | None:
    """In bf16, else in int8 if an expert fits only so; None if it does not."""
    config = MODELS[name]
    for number in (2.0, 1.0):
        shape = Shape(config, number)
        if shape.expert_numbers * number * config.num_hidden_layers < 0.9 * sheet.memory:
            return shape
    return None


def _decodes(shape: Shape, place: Layout, batch: int) -> tuple[float, float]:
    """Seconds of a step, and tokens a second of all heads."""
    took = step_seconds(shape, place, Work(batch, batch, batch * _CONTEXT), steps=2)
    return took, place.heads * batch / took


def _by_batch() -> Iterator[list[str]]:
    for name in MODELS:
        for sheet in SHEETS:
            if shape := shape_of(sheet, name):
                kind = "bf16" if shape.number == 2.0 else "int8"
                for speed in ("1 Gb/s", "10 Gb/s"):
                    place = layout(sheet, shape, _SPEEDS[speed])
                    cells = [_cell(*_decodes(shape, place, batch)) for batch in _BATCHES]
                    yield [name, f"{sheet.name}, {kind}", speed, *cells]


def _cell(took: float, rate: float) -> str:
    return f"{rate:,.0f} ({1e3 * took:.0f} ms)"


def _by_growth() -> Iterator[list[str]]:
    """More replicas, more heads, a popular expert."""
    for sheet, batch, speed in ((SHEETS[1], 128, "10 Gb/s"), (SHEETS[2], 128, "100 Gb/s"), (SHEETS[4], 32, "10 Gb/s")):
        yield from _grown(sheet, batch, speed)


def _grown(sheet: Sheet, batch: int, speed: str) -> Iterator[list[str]]:
    shape = Shape(MODELS["8x7B"])
    case = f"{sheet.name}, {speed}, {batch} requests a head"
    base = layout(sheet, shape, _SPEEDS[speed])
    _, plain = _decodes(shape, base, batch)
    for what, place in (
        ("one head, one replica each", base),
        ("two replicas each", layout(sheet, shape, _SPEEDS[speed], replicas=2)),
        ("two heads", layout(sheet, shape, _SPEEDS[speed], heads=2)),
        ("four heads", layout(sheet, shape, _SPEEDS[speed], heads=4)),
        ("two heads, two replicas each", layout(sheet, shape, _SPEEDS[speed], replicas=2, heads=2)),
    ):
        took, rate = _decodes(shape, place, batch)
        yield [case, what, _cell(took, rate), f"{rate / plain:.2f} x"]
    second = replace(base, seats=(*base.seats, Seat(sheet.machine(), (0,))))
    work = Work(batch, batch, batch * _CONTEXT)
    for what, place in (("expert 0 four times as popular", base), ("... and a second replica of it", second)):
        took = step_seconds(shape, place, work, 2, (4.0, *[1.0] * 7))
        yield [case, what, _cell(took, batch / took), f"{batch / took / plain:.2f} x"]


def run() -> None:
    """Publish tables and chart."""
    header: Sequence[str] = ("", "head and experts", "link", *(f"{batch} requests" for batch in _BATCHES))
    title = "Simulated: output tokens per second (and a step) of decodes with 1,000 tokens of context"
    publish("simulate_batches", title, header, list(_by_batch()), "A machine for the head and for each expert.")
    header = ("", "8x7B", "tokens/s (step)", "")
    publish("simulate_growth", "Simulated: more replicas, more heads", header, list(_by_growth()))
    series: dict[str, list[Point]] = {}
    for speed, rate in _SPEEDS.items():
        shape = Shape(MODELS["8x7B"])
        place = layout(SHEETS[1], shape, rate)
        series[f"L4, {speed}"] = [(float(n), _decodes(shape, place, n)[1]) for n in (1, 4, 16, 64, 256)]
    lines("simulated", "8x7B, one expert on each L4, simulated", ("requests at once", "tokens/s"), series)


if __name__ == "__main__":
    run()
