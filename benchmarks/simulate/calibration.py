"""What the simulator is told of this machine.

The head is timed with experts that only echo, so that its costs hold all of a step but the experts' work. The same
steps with real experts then tell what a call and its rows take, in processes that have slept since their last call and
with other work on their cores, as in a server. Messages are timed by echoes with few and with many bytes. The sizes of
these steps are other ones than those of the check.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass

import numpy as np

from actors.head import Head
from actors.routing.router import ExpertRouter
from actors.routing.step_counts import StepCounts
from actors.threads import cores
from benchmarks.dispatch import EXPERTS, TOP_K, dispatch_of
from benchmarks.overlap import run
from benchmarks.simulate.cluster import HeadCosts, Machine
from model.config import MixtralConfig
from model.routing import Dispatch

_SEQUENCES = (2, 16, 64)  # decodes of a step, or prompts
_PROMPTS = (2, 16)  # of 64 tokens, in a step
_STEPS, _TIMES = 12, 50


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


def calibrate(
    head: Head, real: ExpertRouter, near: ExpertRouter, far: ExpertRouter, epoch: Callable[[], int]
) -> Calibration:
    """Take these times now. The head gets its own experts back afterwards."""
    config = head.config
    layers, lanes = config.num_hidden_layers, cores()
    times = {}
    for name, router in (("echo", near), ("real", real)):
        head.connect(router)
        times[name] = _points(head, epoch)
    # fixed + sequence * sequences + token * layers * tokens; what is fixed counts as layers, because a run cannot tell
    echo = times["echo"]
    fixed, sequence, token = _fit([[1.0, n, layers * tokens] for tokens, n in echo], list(echo.values()))
    added = {point: max(1e-4, times["real"][point] - took) for point, took in echo.items()}
    rows = [[layers * _calls(tokens) / lanes, layers * tokens * TOP_K / lanes] for tokens, _ in added]
    call, row = _fit(rows, list(added.values()))
    message, byte = _messages(near, config.hidden_size)
    far_message, far_byte = _messages(far, config.hidden_size)
    return Calibration(sequence, fixed / layers, token, call, row, message, byte, far_message, far_byte)


def between(first: Calibration, second: Calibration) -> Calibration:
    """The means of two, taken before and after something else, because a shared machine changes its speed."""
    pairs = zip(astuple(first), astuple(second), strict=True)
    return Calibration(*((a + b) / 2 for a, b in pairs))


def _points(head: Head, epoch: Callable[[], int]) -> dict[tuple[int, int], float]:
    """Seconds of a step by its tokens and sequences."""
    found = {}
    for count in _SEQUENCES:
        first, later = run(head, count, _STEPS, epoch())
        found[count, count] = later
        if count in _PROMPTS:
            found[64 * count, count] = first
    return found


def _calls(tokens: int) -> float:
    """Of a layer, on average, when all experts are alike."""
    return EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** tokens)


def _messages(router: ExpertRouter, hidden: int) -> tuple[float, float]:
    """CPU seconds of the head's process for a message there and back, and for each byte of its rows there and back: the
    time that passes would hold the echoes' work, too, which has cores of its own on other machines.
    """
    few, many = (4, 256)
    times = [_head_seconds(router, dispatch_of(tokens, hidden)) for tokens in (few, many)]
    nbytes = [tokens * TOP_K * hidden * 2 for tokens in (few, many)]
    byte = max(0.0, (times[1] - times[0]) / (nbytes[1] - nbytes[0]))
    return (times[0] - byte * nbytes[0]) / EXPERTS, byte


def _head_seconds(router: ExpertRouter, dispatch: Dispatch) -> float:
    """CPU time of this process, all its threads, for a layer's dispatch and combine."""
    router.combine(router.dispatch(dispatch), StepCounts())
    begin = time.process_time()
    for _ in range(_TIMES):
        router.combine(router.dispatch(dispatch), StepCounts())
    return (time.process_time() - begin) / _TIMES


def _fit(rows: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Least squares of relative errors, without negative times."""
    a, b = np.array(rows, float), np.array(seconds, float)
    active = list(range(a.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(a[:, active] / b[:, None], np.ones(len(b)), rcond=None)
        if (found >= 0).all():
            return [float(found[active.index(i)]) if i in active else 0.0 for i in range(a.shape[1])]
        active.pop(int(np.argmin(found)))
