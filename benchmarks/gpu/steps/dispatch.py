"""The cost of one layer's dispatch between actors on the card, and where: device to host, Ray, host to device.

The head's side is this process, and does what the head's actor does: rows leave the device in one transfer, go to eight
actors as messages behind object refs, come back, go up in one transfer. The actors do what an expert does except to
compute: rows up to the device and down again. All share one card, where their transfers may wait for each other's turn.

T: tokens of the batch, D: hidden size, K: experts per token.
"""

import statistics
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from actors.replica import Replica, one_each
from actors.routing.replicas import Replicas
from actors.routing.router import ExpertRouter, ExpertUnavailable
from actors.routing.step_counts import StepCounts
from actors.transport.seam import ExpertCall, ExpertReply, ExpertTransport
from actors.usage import UsageCounter
from benchmarks.gpu.bench import Bench
from benchmarks.gpu.measure.echoes import echoes, own_ray
from benchmarks.gpu.measure.mishap import MISHAPS, reason
from model.device.host_link import HostLink, host_link
from model.routing import Dispatch

TITLE = "dispatch of a layer over object refs, between actors on the card"
TABLE = "Microseconds of a layer's dispatch and combine over eight echoing actors, median"

EXPERTS, TOP_K = 8, 2
_GRACE = 10.0  # seconds until an actor without an answer fails the measurement
_LONGEST = 5.0  # seconds for one number of tokens
_STARTING = 15  # seconds that are not enough for Ray and eight processes with CUDA


@dataclass(frozen=True, slots=True)
class _Sizes:
    tokens: tuple[int, ...]
    hidden: int
    dtype: torch.dtype
    rounds: int


_FULL = _Sizes((1, 8, 64, 256), 4096, torch.bfloat16, 100)
_SMALL = _Sizes((1, 4), 64, torch.bfloat16, 10)


class TimedLink:
    """A link that adds up the seconds of its transfers. It waits for an upload to end, which the head does not."""

    def __init__(self, link: HostLink, bench: Bench) -> None:
        self.down = self.up = 0.0
        self._link, self._bench = link, bench

    def download(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """See `HostLink`."""
        started = time.perf_counter()
        hosts = self._link.download(*tensors)
        self.down += time.perf_counter() - started
        return hosts

    def upload(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `HostLink`."""
        started = time.perf_counter()
        there = self._link.upload(parts)
        self._bench.synchronize()
        self.up += time.perf_counter() - started
        return there


class WatchedTransport:
    """A transport that remembers the longest time that an expert said it had taken."""

    def __init__(self, transport: ExpertTransport) -> None:
        self.slowest = 0.0
        self._transport = transport

    def connect(self, replica: Replica) -> Replica:
        return self._transport.connect(replica)

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        self._transport.submit(calls)

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        replies = self._transport.poll(timeout, call_ids, first)
        self.slowest = max([self.slowest, *(reply.service_seconds for reply in replies)])
        return replies

    def close(self) -> None:
        """Nothing is held."""

    def abandon(self, call_ids: Collection[int]) -> None:
        self._transport.abandon(call_ids)


@torch.inference_mode()
def run(bench: Bench) -> None:
    """Start Ray and the actors, then measure, few tokens first."""
    if bench.left() < _STARTING:
        bench.findings.note(f"left out: all of it ({bench.left():.0f} s left)")
        return
    started = time.monotonic()
    with own_ray(bench, EXPERTS), echoes(bench, EXPERTS) as endpoints:
        bench.findings.fact("Ray and the actors were up after, s", round(time.monotonic() - started, 1))
        _measure_all(endpoints, bench)


@dataclass(frozen=True, slots=True)
class _Reading:
    """Seconds of one layer's dispatch and combine: all of it, the head's transfers, the slowest expert."""

    whole: float
    down: float
    up: float
    expert: float

    @property
    def rest(self) -> float:
        """The time left for Ray, messages, grouping and combining."""
        return self.whole - self.down - self.up - self.expert


def _measure_all(endpoints: Sequence[Any], bench: Bench) -> None:
    from ray.exceptions import RayError

    from actors.transport.object_refs import RayTransport

    sizes = _FULL if bench.full else _SMALL
    link, transport = TimedLink(host_link(bench.device), bench), WatchedTransport(RayTransport())
    replicas, load = Replicas(one_each(endpoints)), UsageCounter(EXPERTS)
    router = ExpertRouter(transport, replicas, load, _GRACE, link=link)
    for index, tokens in enumerate(sizes.tokens):
        if bench.left() < _LONGEST:
            left_out = ", ".join(map(str, sizes.tokens[index:]))
            bench.findings.note(f"left out: {left_out} tokens ({bench.left():.0f} s left)")
            return
        cells: dict[str, object] = {"tokens": tokens}
        try:
            dispatch = _dispatch(tokens, sizes, bench.device)
            total_TD = router.combine(router.dispatch(dispatch), StepCounts())
            name = f"rows come back as they went, {tokens} tokens"
            bench.findings.check(name, torch.equal(total_TD, dispatch.x_TD))
            cells |= _cells(_readings(router, link, transport, dispatch, sizes.rounds, bench))
        except (*MISHAPS, RayError, ExpertUnavailable) as mishap:
            cells["all"] = reason(mishap)
        bench.findings.row(TABLE, cells)
    if any(load.retries):
        bench.findings.note(f"{sum(load.retries)} calls were sent again")


def _dispatch(tokens: int, sizes: _Sizes, device: torch.device) -> Dispatch:
    """All experts alike, as far as `tokens` allows. Weights of a half each give back just the rows that were sent."""
    pairs_TK = torch.arange(tokens * TOP_K, device=device).view(tokens, TOP_K) % EXPERTS
    weights_TK = torch.full((tokens, TOP_K), 1.0 / TOP_K, device=device)
    x_TD = torch.randn(tokens, sizes.hidden, dtype=sizes.dtype, device=device)
    return Dispatch(0, x_TD, pairs_TK.sort(dim=-1).values, weights_TK)


def _readings(
    router: ExpertRouter, link: TimedLink, transport: WatchedTransport, dispatch: Dispatch, rounds: int, bench: Bench
) -> list[_Reading]:
    readings, end = list[_Reading](), time.monotonic() + _LONGEST
    for number in range(-max(2, rounds // 10), rounds):  # those below 0 only warm up
        if readings and time.monotonic() > end:
            break
        link.down = link.up = transport.slowest = 0.0
        bench.synchronize()
        started = time.perf_counter()
        router.combine(router.dispatch(dispatch), StepCounts())
        bench.synchronize()
        whole = time.perf_counter() - started
        if number >= 0:
            readings.append(_Reading(whole, link.down, link.up, transport.slowest))
    return readings


def _cells(readings: Sequence[_Reading]) -> dict[str, object]:
    names = {
        "all": "whole",
        "head, device to host": "down",
        "head, host to device": "up",
        "slowest expert, up and down": "expert",
        "rest: Ray, messages, grouping": "rest",
    }
    medians = {
        name: round(1e6 * statistics.median(getattr(r, attribute) for r in readings))
        for name, attribute in names.items()
    }
    return {**medians, "rounds": len(readings)}
