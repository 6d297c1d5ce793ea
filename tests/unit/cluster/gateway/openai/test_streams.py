"""Silence in a stream, and several generations as one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from cluster.engine.generation import GenerationFailed
from cluster.gateway.openai.streams import KEEP_ALIVE, event, kept_alive, merged


class Source:
    """Stands for a Generation: gives its numbers, waits where there is an event, then fails if it should."""

    def __init__(self, *steps: int | asyncio.Event, failure: str = "") -> None:
        self._steps, self._failure, self.closed = steps, failure, False

    async def pieces(self) -> AsyncGenerator[list[Any], None]:
        try:
            for step in self._steps:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield [step]
            if self._failure:
                raise GenerationFailed(self._failure)
        finally:
            self.closed = True


async def texts(source: Source) -> AsyncGenerator[str, None]:
    async with contextlib.aclosing(source.pieces()) as pieces:
        async for some in pieces:
            yield str(some)


async def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    """F10."""
    more = asyncio.Event()
    kept: Any = kept_alive(texts(Source(0, more, 1, 2)), 0.01)
    assert [await anext(kept), await anext(kept)] == ["[0]", KEEP_ALIVE]
    assert KEEP_ALIVE == ": keep-alive\n\n"
    more.set()
    assert [text async for text in kept if text != KEEP_ALIVE] == ["[1]", "[2]"]


async def test_a_stream_that_is_left_ends_its_source() -> None:
    source = Source(0, asyncio.Event())
    kept: Any = kept_alive(texts(source), 0.01)
    assert [await anext(kept), await anext(kept)] == ["[0]", KEEP_ALIVE]
    await kept.aclose()
    assert source.closed


async def test_several_generations_come_as_one() -> None:
    more = asyncio.Event()
    sources: list[Any] = [Source(more, 7, 8), Source(1, 2, 3)]
    come: list[Any] = []
    async for place, pieces in merged(sources):
        come.append((place, pieces))
        if len(come) == 3:
            more.set()
    assert come == [(1, [1]), (1, [2]), (1, [3]), (0, [7]), (0, [8])]
    assert all(source.closed for source in sources)


async def test_the_failure_of_one_ends_all() -> None:
    sources: list[Any] = [Source(asyncio.Event()), Source(0, failure="numeric")]
    with pytest.raises(GenerationFailed):
        async for _ in merged(sources):
            pass
    assert all(source.closed for source in sources)


async def test_several_that_are_left_unread_end() -> None:
    sources: list[Any] = [Source(*range(100)), Source(*range(100))]
    come = merged(sources)
    await anext(come)
    for _ in range(5):  # rounds of the loop, in which more comes that nobody reads
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await come.aclose()


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    """F9."""
    line = event({"text": "a\nb\u2028c\U0001f600"})
    assert line.isascii() and line.count("\n") == 2 and line.endswith("\n\n")
