"""How `serve` is told to end: the first signal asks it to drain, the second to wait for requests no longer, the third
to end at once. `bound` seconds after the first signal the process ends, even if something hangs.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

log = logging.getLogger("eightwinds.serve")

Call = Callable[[], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def after(seconds: float, call: Call) -> None:
    """Call it after so many seconds, unless the process has ended before."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class Shutdown:
    """The first signal sets `stop` for threads and `asked` for the event loop, where the second calls `hurry`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, bound: float, force: Call, after: Callable[[float, Call], None] = after
    ) -> None:
        self.stop, self.asked = threading.Event(), asyncio.Event()
        self.hurry: Call = lambda: None
        self._loop, self._bound, self._force, self._after = loop, bound, force, after
        self._count = 0

    def listen(self) -> None:
        """Handle the process's signals from now on, but not one that is ignored, as nohup ignores SIGHUP."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, lambda *_: self.signalled())

    def signalled(self) -> None:
        """Handle a signal. Runs between two instructions of the main thread, so a busy event loop does not delay it."""
        self._count += 1
        if self._count == 1:
            self.stop.set()
            self._loop.call_soon_threadsafe(self.asked.set)
            self._after(self._bound, self._too_late)
        elif self._count == 2:
            self._loop.call_soon_threadsafe(lambda: self.hurry())
        else:
            self._force()

    def _too_late(self) -> None:
        log.critical("not ended %g s after the signal: the process ends now", self._bound)
        self._force()
