"""Messages on their way in: their number, their time, and who makes room."""

import asyncio
import random
from typing import Any

import pytest

from cluster.gateway.errors import ApiError, ErrorKind
from cluster.gateway.rpc.uploads import Uploads


async def never() -> str:
    await asyncio.Event().wait()
    return ""


async def at_once() -> str:
    return "message"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_at_once_is_read_whatever_the_number() -> None:
    uploads = Uploads(2, seconds=60.0)
    assert await asyncio.gather(*(uploads.read(f"t{i}", f"c{i}", at_once) for i in range(100))) == ["message"] * 100
    uploads.check()


async def test_one_that_never_ends_is_ended() -> None:
    uploads = Uploads(2, seconds=0.0)
    with pytest.raises(ApiError, match="MESSAGE_TOO_SLOW") as caught:
        await uploads.read("c", "c", never)
    assert (caught.value.kind, caught.value.retry_seconds) == (ErrorKind.EXHAUSTED, 1.0)
    uploads.check()


async def test_a_slow_one_makes_room_only_when_another_waits() -> None:
    uploads = Uploads(2, seconds=60.0, patience=0.0, each=2)
    slow = [asyncio.create_task(uploads.read("stranger", "stranger", never)) for _ in range(2)]
    await settle()
    assert len(uploads) == 2 and not any(task.done() for task in slow)
    assert await uploads.read("client", "client", at_once) == "message"
    with pytest.raises(ApiError, match="MESSAGE_TOO_SLOW"):
        await slow[0]
    assert not slow[1].done(), "one place was asked for"
    slow[1].cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    uploads.check()


async def test_who_holds_most_places_makes_room_though_another_began_earlier() -> None:
    uploads = Uploads(3, seconds=60.0, patience=0.0, each=3)
    first = asyncio.create_task(uploads.read("client", "client", never))
    await settle()
    others = [asyncio.create_task(uploads.read("stranger", "stranger", never)) for _ in range(2)]
    await settle()
    assert await uploads.read("third", "third", at_once) == "message"
    assert others[0].done() and not first.done()
    for task in (first, *others):
        task.cancel()
    await asyncio.gather(first, *others, return_exceptions=True)
    uploads.check()


async def test_connections_that_wait_take_turns() -> None:
    uploads, order = Uploads(1, seconds=60.0), list[str]()

    async def noted(who: str) -> None:
        async def reading() -> None:
            order.append(who)

        await uploads.read("tenant", who, reading)

    gate = asyncio.Event()
    holding = asyncio.create_task(uploads.read("tenant", "holder", gate.wait))
    await settle()
    waiting = [asyncio.create_task(noted(who)) for who in ("flood", "flood", "flood", "client")]
    await settle()
    gate.set()
    await asyncio.gather(holding, *waiting)
    assert order == ["flood", "client", "flood", "flood"]
    uploads.check()


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_every_place_is_given_back(seed: int) -> None:
    rng, uploads = random.Random(seed), Uploads(3, seconds=60.0, patience=0.0, each=seed % 3 + 1)
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(200):
        match rng.randrange(4):
            case 0:
                tasks.append(asyncio.create_task(uploads.read(rng.choice("ab"), rng.choice("xyz"), never)))
            case 1:
                tasks.append(asyncio.create_task(uploads.read(rng.choice("ab"), rng.choice("xyz"), at_once)))
            case 2 if tasks:
                rng.choice(tasks).cancel()
            case _:
                await asyncio.sleep(0)
        assert len(uploads) <= 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    uploads.check()


async def test_a_tenant_has_so_many_places_and_waits_for_its_own() -> None:
    uploads = Uploads(8, seconds=60.0, patience=0.0, each=2)
    other = asyncio.create_task(uploads.read("other", "other", never))
    await settle()
    flood = [asyncio.create_task(uploads.read("flood", "flood", never)) for _ in range(3)]
    await settle()
    assert [task.done() for task in flood] == [True, False, False], "its oldest made room for its third"
    assert not other.done()
    assert await uploads.read("client", "client", at_once) == "message", "who has places left does not wait"
    for task in (other, *flood):
        task.cancel()
    await asyncio.gather(other, *flood, return_exceptions=True)
    uploads.check()


async def test_each_of_many_that_never_end_makes_room_for_the_next() -> None:
    """Also where a tenant has one place, so that at times none is open and one is promised."""
    uploads = Uploads(4, seconds=60.0, patience=0.0, each=1)
    flood = [asyncio.create_task(uploads.read("tenant", "flood", never)) for _ in range(5)]
    await settle()
    async with asyncio.timeout(10):
        assert await uploads.read("tenant", "client", at_once) == "message"
        await asyncio.wait(flood[:4])
    flood[4].cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    uploads.check()
