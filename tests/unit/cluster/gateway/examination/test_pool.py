"""Work before the queue: bounded for each tenant, in turns, and small beside large."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.gateway.errors import ApiError, ErrorKind
from cluster.gateway.examination.pool import SMALL_BYTES, Examination
from cluster.settings.sections import LimitsSection
from tests.fakes import PATIENCE


class Gate:
    """Work that lasts until it is let go."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(PATIENCE)
        return "long"


LARGE = SMALL_BYTES + 1


def make(**limits: float) -> Examination:
    """One that does all works here."""
    given = LimitsSection(**limits)  # type: ignore[arg-type]  # by field name
    return Examination(lambda work: work(), lambda work: work(), given)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


async def begin(pool: Examination, *given: Any, **named: Any) -> "asyncio.Task[Any]":
    task = asyncio.create_task(pool.run(*given, **named))
    await asyncio.sleep(0)
    pool.check()
    return task


async def test_results_and_errors_come_back() -> None:
    pool = make()
    assert await pool.run("alice", 10, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await pool.run("alice", LARGE, lambda: 1 // 0)
    pool.check()
    pool.close()


async def test_small_work_and_schemas_do_not_wait_behind_large(gate: Gate) -> None:
    pool = make()
    long = await begin(pool, "mallory", LARGE, gate)
    assert await pool.run("alice", 100, lambda: "short") == "short"
    assert await pool.run("alice", 100, lambda: "schema", costly=True) == "schema"
    assert not long.done()
    gate.open.set()
    assert await long == "long"
    pool.close()


async def test_tenants_take_turns(gate: Gate) -> None:
    pool, order = make(), list[str]()
    tasks = [await begin(pool, "mallory", LARGE, gate)]
    for name in ("mallory", "mallory", "mallory", "alice"):
        tasks.append(await begin(pool, name, LARGE, lambda name=name: order.append(name)))
    gate.open.set()
    await asyncio.gather(*tasks)
    assert order == ["mallory", "alice", "mallory", "mallory"]
    pool.check()
    pool.close()


async def test_a_tenant_may_have_so_much_waiting_and_others_are_let_in(gate: Gate) -> None:
    pool = make(examinations=2)
    tasks = [await begin(pool, "mallory", LARGE, gate)]
    tasks += [await begin(pool, "mallory", LARGE, int) for _ in range(2)]
    with pytest.raises(ApiError, match="EXAMINATION_BUSY") as caught:
        await pool.run("mallory", LARGE, int)
    assert (caught.value.kind, caught.value.retry_seconds) == (ErrorKind.EXHAUSTED, 5.0)
    tasks.append(await begin(pool, "alice", LARGE, int))
    gate.open.set()
    await asyncio.gather(*tasks)
    pool.close()


async def test_what_waits_is_bounded_in_bytes(gate: Gate) -> None:
    pool = make(examination_bytes=3 * LARGE)
    tasks = [await begin(pool, "a", LARGE, gate)]
    tasks += [await begin(pool, name, LARGE, int) for name in "bcd"]
    with pytest.raises(ApiError, match="EXAMINATION_BUSY"):
        await pool.run("e", LARGE, int)
    gate.open.set()
    await asyncio.gather(*tasks)
    pool.check()
    pool.close()


async def test_nobody_waits_for_ever(gate: Gate) -> None:
    pool = make(examination_s=0.001)
    long = await begin(pool, "mallory", LARGE, gate)
    with pytest.raises(ApiError, match="EXAMINATION_BUSY") as caught:
        await pool.run("alice", LARGE, int)
    assert caught.value.retry_seconds == 0.001, "the time for which it waited"
    pool.check()
    gate.open.set()
    assert await long == "long", "what has begun is finished"
    pool.close()


async def test_whoever_leaves_gives_his_turn_away(gate: Gate) -> None:
    pool, done = make(), list[int]()
    long = await begin(pool, "mallory", LARGE, gate)
    gone = await begin(pool, "alice", LARGE, lambda: done.append(1))
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    pool.check()
    gate.open.set()
    await long
    assert await pool.run("alice", LARGE, lambda: 2) == 2
    assert not done
    pool.close()


async def test_large_work_is_done_apart_also_where_it_is_costly() -> None:
    pool = Examination(lambda work: work("here"), lambda work: work("apart"), LimitsSection())

    def where(place: str) -> str:
        return place

    assert await pool.run("alice", 10, where) == "here"
    assert await pool.run("alice", 10, where, costly=True) == "here"
    assert await pool.run("alice", LARGE, where) == "apart"
    assert await pool.run("alice", LARGE, where, costly=True) == "apart"
    pool.close()
