"""How `serve` is told to end, and for how long it may take.

The first signal asks it to drain, a second one not to wait for requests any longer, a third one to end at once. So does
the time: whatever hangs, the process is gone `bound` seconds after the first signal.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable

log = logging.getLogger("eightwinds.serve")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def after(seconds: float, call: Callable[[], None]) -> None:
    """Call it then, on a thread that keeps no process alive: in one that has ended by itself nothing happens."""
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


class Shutdown:
    """What signals have asked for so far. `stop` is for threads, `asked` for the event loop; `hurry` is called on the
    loop when requests shall not be waited for, `force` wherever the process must end now.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bound: float,
        force: Callable[[], None],
        after: Callable[[float, Callable[[], None]], None] = after,
    ) -> None:
        self.stop, self.asked = threading.Event(), asyncio.Event()
        self.hurry: Callable[[], None] = lambda: None
        self._loop, self._bound, self._force, self._after = loop, bound, force, after
        self._count = 0

    def listen(self) -> None:
        """Take the process's signals from now on; SIGHUP only if nobody has it ignored, as nohup does."""
        for signum in _SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, lambda *_: self.signalled())

    def signalled(self) -> None:
        """A signal came. Called between two instructions of the main thread, so that a busy loop does not delay it."""
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
