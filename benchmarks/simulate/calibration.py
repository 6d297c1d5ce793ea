"""What the simulator is told of this machine. Nothing of it is taken from the runs it is checked against.

The head is timed with experts that only echo, so that its costs hold all of a step but the experts' work. A call is
timed by layers of even rows that go to real experts, less the same layers with echoes. Messages are timed by echoes
with few and with many bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from actors.head import Head
from actors.routing.router import ExpertRouter
from actors.routing.step_counts import StepCounts
from actors.threads import cores
from benchmarks.dispatch import measure
from benchmarks.load import median
from benchmarks.overlap import run
from benchmarks.simulate.cluster import HeadCosts, Machine
from model.config import MixtralConfig
from model.routing import Dispatch

_EXPERTS, _TOP = 8, 2
_HEAD_TOKENS = (2, 16, 48)  # decodes of a step
_CALL_TOKENS = (4, 16, 64, 256, 1024)  # tokens of a layer: a quarter of them are each call's rows
_STEPS, _TIMES = 12, 24


@dataclass(frozen=True, slots=True)
class Calibration:
    """Seconds, as `HeadCosts` and `Machine` have them: of the head, of a call and its rows with all cores at work, and
    of a message and its bytes on the head's core, within a host and between hosts.
    """

    sequence: float
    layer: float
    token: float
    call: float
    row: float
    message: float
    byte: float
    far_message: float
    far_byte: float

    def head(self) -> HeadCosts:
        """This machine's, with messages within it."""
        return HeadCosts(0.0, self.sequence, self.layer, self.token)

    def machine(self, config: MixtralConfig) -> Machine:
        """This machine's cores; only for the experts of that model."""
        operations = 2 * 3 * config.hidden_size * config.intermediate_size
        return Machine("this one", float("inf"), operations / self.row, self.call, cores())

    def as_numbers(self) -> dict[str, float]:
        """For a file."""
        return asdict(self)


def even(tokens: int, hidden: int, layer: int = 0) -> Dispatch:
    """A layer's dispatch that loads all experts alike."""
    experts_TK = (torch.arange(tokens * _TOP).view(tokens, _TOP) % _EXPERTS).sort(dim=-1).values
    return Dispatch(layer, torch.randn(tokens, hidden).bfloat16(), experts_TK, torch.full((tokens, _TOP), 0.5))


def calibrate(
    head: Head, real: ExpertRouter, near: ExpertRouter, far: ExpertRouter, epoch: Callable[[], int]
) -> Calibration:
    """Take these times now. The head gets its own experts back afterwards."""
    config = head.config
    head.connect(near)
    decode, prefill = [], []
    for tokens in _HEAD_TOKENS:
        first, later = run(head, tokens, _STEPS, epoch())
        decode.append((tokens, later))
        prefill.append((64 * tokens, tokens, first))
    head.connect(real)
    layers = config.num_hidden_layers
    # fixed + sequence * sequences + token * layers * tokens; what is fixed counts as layers, because a run cannot tell
    points = [(n, n, took) for n, took in decode] + prefill
    fixed, sequence, token = _fit([[1.0, n, layers * tokens] for tokens, n, _ in points], [took for *_, took in points])
    calls = []
    for tokens in _CALL_TOKENS:
        dispatches = [even(tokens, config.hidden_size, layer) for layer in range(layers)]
        real_s, echo_s = (_layer_seconds(router, dispatches) for router in (real, near))
        calls.append((tokens * _TOP / _EXPERTS, (real_s - echo_s) * cores() / _EXPERTS))
    call, row = _fit([[1.0, count] for count, _ in calls], [took for _, took in calls])
    message, byte = _messages(near, config.hidden_size)
    far_message, far_byte = _messages(far, config.hidden_size)
    return Calibration(sequence, fixed / layers, token, call, row, message, byte, far_message, far_byte)


def _layer_seconds(router: ExpertRouter, dispatches: Sequence[Dispatch]) -> float:
    def layers() -> None:
        for dispatch in dispatches:
            router.combine(router.dispatch(dispatch), StepCounts())

    layers()
    return median(measure(layers, max(3, _TIMES // len(dispatches)))) / 1e6 / len(dispatches)


def _messages(router: ExpertRouter, hidden: int) -> tuple[float, float]:
    """Seconds of a message there and back, and of each byte of its rows."""
    few, many = (4, 256)
    times = [_layer_seconds(router, [even(tokens, hidden)] * _EXPERTS) for tokens in (few, many)]
    nbytes = [tokens * _TOP * hidden * 2 for tokens in (few, many)]
    byte = max(0.0, (times[1] - times[0]) / (nbytes[1] - nbytes[0]))
    return (times[0] - byte * nbytes[0]) / _EXPERTS, byte


def _fit(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Least squares of relative errors, without negative times."""
    a, b = np.array(rows, float), np.array(seconds, float)
    active = list(range(a.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(a[:, active] / b[:, None], np.ones(len(b)), rcond=None)
        if (found >= 0).all():
            return [float(found[active.index(i)]) if i in active else 0.0 for i in range(a.shape[1])]
        active.pop(int(np.argmin(found)))
