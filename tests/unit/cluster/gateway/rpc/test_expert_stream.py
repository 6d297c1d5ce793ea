"""Load is looked at once for all who watch it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.control.fixed import FixedReplicas
from cluster.gateway.rpc.expert_stream import LoadWatches
from cluster.observe.view import ClusterView, EngineCounters
from protos.eightwinds.v1 import cluster_pb2 as pb

SHORT = 0.06  # seconds; a look is fresh for less


class Looked:
    """Counters that grow by one row for each look at them."""

    def __init__(self) -> None:
        self.looks = 0
        self.fails: Exception | None = None

    async def __call__(self) -> ClusterView:
        if self.fails:
            raise self.fails
        self.looks += 1
        rows = EngineCounters(expert_rows=((self.looks, 0),))
        return ClusterView(float(self.looks), FixedReplicas(2).snapshot(), engine=rows)


async def first_of(messages: AsyncIterator[pb.WatchExpertLoadResponse]) -> pb.WatchExpertLoadResponse:
    return await anext(messages)


async def test_many_watches_are_one_computation() -> None:
    look = Looked()
    watches = LoadWatches(look)
    streams = [watches.messages(SHORT, (0,)) for _ in range(50)]
    messages = await asyncio.gather(*map(first_of, streams))
    assert all(message is messages[0] for message in messages)
    assert look.looks == 2, "one before the window and one after it"
    assert messages[0].experts[0].token_count == 1
    for stream in streams:
        await stream.aclose()
    watches.check()


async def test_watches_of_other_layers_share_the_looks() -> None:
    look = Looked()
    watches = LoadWatches(look)
    streams = [watches.messages(SHORT, layers) for layers in ((0,), ())]
    one, other = await asyncio.gather(*map(first_of, streams))
    assert [len(one.layers), len(other.layers)] == [1, 0]
    assert look.looks == 2
    for stream in streams:
        await stream.aclose()
    watches.check()


async def test_what_a_look_raises_ends_the_watch_and_the_next_one_looks_again() -> None:
    look = Looked()
    look.fails = ValueError("starting")
    watches = LoadWatches(look)
    with pytest.raises(ValueError, match="starting"):
        await anext(watches.messages(SHORT, ()))
    watches.check()
    look.fails = None
    await asyncio.sleep(SHORT)
    stream = watches.messages(SHORT, ())
    assert (await anext(stream)).experts
    await stream.aclose()
    watches.check()
