"""The router's own time for being ready for failures and for counting the load, without Ray and experts.

Routers that differ in one setting take turns at the same dispatches, layer by layer, in one thread, with experts that
answer at once. That leaves out nothing that the settings change while nothing fails: the calls that are sent are the
same, and a call that is in time is waited for once, with or without a deadline.
"""

import math
import random
import statistics
import time
from collections.abc import Collection, Mapping, Sequence

import torch

from actors.replica import Replica, one_each
from actors.routing.deadlines import Deadlines
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter
from actors.routing.step_counts import StepCounts
from actors.transport.seam import ExpertCall, ExpertReply
from actors.usage import UsageCounter
from model.routing import Dispatch, route

_EXPERTS, _TOP = 8, 2
_DISPATCHES = 64  # different ones
_WARM, _LAYERS = 2_000, 30_000
_SERVICE_SECONDS = 0.3e-3  # what experts say that a call took


class _Echo:
    """Answers each call with its rows. See `actors.transport.seam.ExpertTransport`."""

    def __init__(self) -> None:
        self._calls: list[ExpertCall] = []

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        self._calls += calls

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        calls, self._calls = self._calls, []
        return [ExpertReply(call.call_id, call.rows_RD, service_seconds=_SERVICE_SECONDS) for call in calls]

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self, call_ids: Collection[int]) -> None:
        """There never is one under way."""


class _NoDeadlines(Deadlines):
    """The router without fault tolerance: no deadline, hedge or split, and nothing learnt."""

    def observe(self, rows: int, seconds: float) -> None:
        return

    def deadline(self, rows: int) -> float:
        return math.inf

    def hedge_after(self, rows: int) -> float:
        return math.inf

    def parts(self, rows: int, replicas: int) -> int:
        return 1


class _NoCounter(UsageCounter):
    def served(self, replica: Replica, rows: int, seconds: float) -> None:
        return


def layer_costs(tokens: int, hidden: int) -> dict[str, float]:
    """Seconds of processor time per layer of so many tokens: the median layer's, of a router with everything, without
    deadlines (`fault tolerance`), without its counter (`counting`).
    """
    routers = {
        "all": _router(Deadlines(), UsageCounter(_EXPERTS)),
        "fault tolerance": _router(_NoDeadlines(), UsageCounter(_EXPERTS)),
        "counting": _router(Deadlines(), _NoCounter(_EXPERTS)),
    }
    generator = torch.Generator().manual_seed(1)
    dispatches = [_dispatch(tokens, hidden, generator) for _ in range(_DISPATCHES)]
    _seconds(routers, dispatches, _WARM)
    return {name: statistics.median(values) for name, values in _seconds(routers, dispatches, _LAYERS).items()}


def _router(deadlines: Deadlines, usage: UsageCounter) -> ExpertRouter:
    return ExpertRouter(_Echo(), Replicas(one_each([None] * _EXPERTS)), usage, deadlines=deadlines)


def _dispatch(tokens: int, hidden: int, generator: torch.Generator) -> Dispatch:
    x_TD = torch.randn(tokens, hidden, generator=generator)
    experts_TK, weights_TK = route(torch.randn(tokens, _EXPERTS, generator=generator), _TOP)
    return Dispatch(0, x_TD, experts_TK, weights_TK)


def _seconds(
    routers: Mapping[str, ExpertRouter], dispatches: Sequence[Dispatch], layers: int
) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in routers}
    counts, rng = StepCounts(), random.Random(1)
    for number in range(layers):
        dispatch = dispatches[number % len(dispatches)]
        for name in rng.sample(list(routers), len(routers)):
            before = time.thread_time()
            routers[name].combine(routers[name].dispatch(dispatch), counts)
            found[name].append(time.thread_time() - before)
    return found
