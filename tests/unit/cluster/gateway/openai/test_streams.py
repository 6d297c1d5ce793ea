"""Silence in a stream, and several generations as one."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from cluster.engine.generation import GenerationFailed
from cluster.gateway.openai.streams import KEEP_ALIVE, event, kept_alive, merged


class Source:
    """Stands for a Generation: gives one piece for each pause, then fails if it should."""

    def __init__(self, pauses: list[float], failure: str = "") -> None:
        self._pauses, self._failure, self.closed = pauses, failure, False

    async def pieces(self) -> AsyncGenerator[list[Any], None]:
        try:
            for pause in self._pauses:
                await asyncio.sleep(pause)
                yield [pause]
            if self._failure:
                raise GenerationFailed(self._failure)
        finally:
            self.closed = True


async def some_events(*pauses: float) -> AsyncGenerator[str, None]:
    for pause in pauses:
        await asyncio.sleep(pause)
        yield str(pause)


async def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    """F10."""
    come = [text async for text in kept_alive(some_events(0, 0.2, 0), 0.05)]
    assert [text for text in come if text != KEEP_ALIVE] == ["0", "0.2", "0"]
    assert come[1] == KEEP_ALIVE == ": keep-alive\n\n" and come[-1] == "0"


async def test_a_stream_that_is_left_ends_its_source() -> None:
    source = Source([0, 100])

    async def texts() -> AsyncGenerator[str, None]:
        async for pieces in source.pieces():
            yield str(pieces)

    kept: Any = kept_alive(texts(), 0.01)
    assert [await anext(kept), await anext(kept)] == ["[0]", KEEP_ALIVE]
    await kept.aclose()
    assert source.closed


async def test_several_generations_come_as_one() -> None:
    sources: list[Any] = [Source([0.02, 0.02]), Source([0, 0, 0])]
    come = [(place, pieces) async for place, pieces in merged(sources)]
    assert sorted(come) == [(0, [0.02]), (0, [0.02]), (1, [0]), (1, [0]), (1, [0])]
    assert all(source.closed for source in sources)


async def test_the_failure_of_one_ends_all() -> None:
    sources: list[Any] = [Source([100]), Source([0], "numeric")]
    with pytest.raises(GenerationFailed):
        async for _ in merged(sources):
            pass
    assert all(source.closed for source in sources)


async def test_several_that_are_left_unread_end() -> None:
    sources: list[Any] = [Source([0] * 100), Source([0] * 100)]
    come = merged(sources)
    await anext(come)
    await asyncio.sleep(0.01)  # more has come meanwhile, which nobody reads
    async with asyncio.timeout(20):
        await come.aclose()


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    """F9."""
    line = event({"text": "a\nb\u2028c\U0001f600"})
    assert line.isascii() and line.count("\n") == 2 and line.endswith("\n\n")
