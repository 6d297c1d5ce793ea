import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from cluster.launch.process.shutdown import Shutdown


@dataclass
class Clock:
    """Calls when it is told to."""

    calls: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((seconds, call))


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for signum in before:
        signal.signal(signum, signal.SIG_DFL)  # under nohup, or behind a shell's &, some come ignored
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


async def made(forced: list[str], clock: Clock) -> Shutdown:
    return Shutdown(asyncio.get_running_loop(), 38.0, lambda: forced.append("forced"), clock.after)


async def test_the_first_signal_asks_the_second_hurries_the_third_forces() -> None:
    forced: list[str] = []
    clock = Clock()
    shutdown = await made(forced, clock)
    shutdown.hurry = lambda: forced.append("hurried")
    shutdown.signalled()
    assert shutdown.stop.is_set() and not forced
    await asyncio.wait_for(shutdown.asked.wait(), 1)
    shutdown.signalled()
    await asyncio.sleep(0)
    assert forced == ["hurried"]
    shutdown.signalled()
    assert forced == ["hurried", "forced"]


async def test_time_forces_what_hangs() -> None:
    forced: list[str] = []
    clock = Clock()
    shutdown = await made(forced, clock)
    shutdown.signalled()
    ((seconds, too_late),) = clock.calls
    assert seconds == 38.0
    too_late()
    assert forced == ["forced"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_each_signal_is_heard(signum: signal.Signals) -> None:
    shutdown = await made([], Clock())
    shutdown.listen()
    signal.raise_signal(signum)
    await asyncio.wait_for(shutdown.asked.wait(), 1)


async def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    shutdown = await made([], Clock())
    shutdown.listen()
    signal.raise_signal(signal.SIGHUP)
    await asyncio.sleep(0)
    assert not shutdown.stop.is_set()
