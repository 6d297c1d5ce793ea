"""Load is looked at once for all who watch it."""

import asyncio

import pytest

from cluster.control.fixed import FixedReplicas
from cluster.gateway.rpc.expert_stream import LoadWatches
from cluster.observe.view import ClusterView, EngineCounters
from protos.eightwinds.v1 import cluster_pb2 as pb


class World:
    """Time that passes when the test says so, and counters that grow by one row for each look at them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.looks = 0
        self.fails: Exception | None = None
        self.watches = LoadWatches(self.look, lambda: self.now, self.sleep)

    async def look(self) -> ClusterView:
        if self.fails:
            raise self.fails
        self.looks += 1
        rows = EngineCounters(expert_rows=((self.looks, 0),))
        return ClusterView(float(self.looks), FixedReplicas(2).snapshot(), engine=rows)

    async def sleep(self, seconds: float) -> None:
        waker = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, waker))
        await waker

    async def first_of(self, *watched: tuple[int, ...]) -> list[pb.WatchExpertLoadResponse]:
        """The first message of watches of these layers, after the 60 s that each of them asks for."""
        streams = [self.watches.messages(60.0, layers) for layers in watched]
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        for passing in (0, 59, 1):
            self.now += passing
            for due, waker in self.sleepers:
                if due <= self.now and not waker.done():
                    waker.set_result(None)
            for _ in range(10):
                await asyncio.sleep(0)
            assert all(task.done() == (passing == 1) for task in waiting)
        messages = await asyncio.gather(*waiting)
        for stream in streams:
            await stream.aclose()
        self.watches.check()
        return messages


async def test_many_watches_are_one_computation() -> None:
    world = World()
    messages = await world.first_of(*[(0,)] * 50)
    assert all(message is messages[0] for message in messages)
    assert world.looks == 2, "one before the window and one after it"
    assert messages[0].experts[0].token_count == 1


async def test_watches_of_other_layers_share_the_looks() -> None:
    world = World()
    one, other = await world.first_of((0,), ())
    assert [len(one.layers), len(other.layers)] == [1, 0]
    assert world.looks == 2


async def test_what_a_look_raises_ends_the_watch_and_the_next_one_looks_again() -> None:
    world = World()
    world.fails = ValueError("starting")
    with pytest.raises(ValueError, match="starting"):
        await anext(world.watches.messages(60.0, ()))
    world.watches.check()
    world.fails = None
    world.now += 1
    (message,) = await world.first_of(())
    assert message.experts
