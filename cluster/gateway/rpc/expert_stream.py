"""Experts' usage, interval by interval: computed and written once for all watchers of the same interval."""

from __future__ import annotations  # grpc's generic types exist only in its type stubs

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from google.protobuf import timestamp

from cluster.gateway.rpc.times import duration
from cluster.observe.usage import Load, Window, between
from cluster.observe.view import ClusterView
from protos.eightwinds.v1 import cluster_pb2 as pb

Look = Callable[[], Awaitable[ClusterView]]
Sleep = Callable[[float], Awaitable[None]]
Layers = tuple[int, ...]

_FRESH_SECONDS = 0.05  # looks that are this close are one; the shortest interval is twice as long


class LoadWatches:
    """The watchers by what they watch. One that joins sees the window that is under way, so its first message may come
    sooner; one that reads too slowly misses some.
    """

    def __init__(self, look: Look, clock: Callable[[], float] = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._look_now, self._clock, self._sleep = look, clock, sleep
        self._looking: asyncio.Future[ClusterView] | None = None
        self._looked = float("-inf")
        self._beats: dict[tuple[float, Layers], _Beat] = {}

    async def messages(self, interval: float, layers: Layers) -> AsyncGenerator[pb.WatchExpertLoadResponse, None]:
        """Windows of `interval` seconds each, without end; raises what a look raises."""
        key = interval, layers
        beat = self._beats.get(key)
        if beat is None or beat.task.done():
            beat = self._beats[key] = _Beat(interval, layers, self._look, self._sleep)
        beat.watchers += 1
        try:
            while True:
                yield await asyncio.shield(beat.next)
        finally:
            beat.watchers -= 1
            if not beat.watchers:
                beat.task.cancel()
                if self._beats.get(key) is beat:
                    del self._beats[key]

    async def _look(self) -> ClusterView:
        now = self._clock()
        if self._looking is None or now - self._looked >= _FRESH_SECONDS:
            self._looked = now
            self._looking = asyncio.ensure_future(self._look_now())
        return await asyncio.shield(self._looking)

    def check(self) -> None:
        assert all(beat.watchers > 0 for beat in self._beats.values())


class _Beat:
    """One interval's watchers, and a task that lives as long as there are any."""

    def __init__(self, interval: float, layers: Layers, look: Look, sleep: Sleep) -> None:
        self.watchers = 0
        self.next: asyncio.Future[pb.WatchExpertLoadResponse] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(interval, layers, look, sleep))

    async def _run(self, interval: float, layers: Layers, look: Look, sleep: Sleep) -> None:
        try:
            before = await look()
            while True:
                await sleep(interval)
                after = await look()
                done, self.next = self.next, asyncio.get_running_loop().create_future()
                done.set_result(_message(between(before, after), layers))
                before = after
        except Exception as error:
            self.next.set_exception(error)
            self.next.exception()  # it may be that nobody waits at this moment


def rows(load: Load) -> pb.ExpertLoad:
    return pb.ExpertLoad(expert=load.expert, token_count=load.rows, relative_load=load.relative)


def whole(load: Load) -> pb.ExpertLoad:
    """With times and calls sent again."""
    message = rows(load)
    message.utilization = load.utilization
    message.queued_token_count = load.queued
    message.service_time_p50.CopyFrom(duration(load.service_p50))
    message.service_time_p99.CopyFrom(duration(load.service_p99))
    message.retry_count, message.hedge_count = load.retries, load.hedges
    return message


def _message(window: Window, layers: Layers) -> pb.WatchExpertLoadResponse:
    return pb.WatchExpertLoadResponse(
        snapshot_time=timestamp.from_current_time(),
        window=duration(window.seconds),
        layers=[pb.LayerLoad(layer=i, experts=map(rows, window.layers[i])) for i in layers if i < len(window.layers)],
        experts=map(whole, window.experts),
    )
