"""A process that is slowed down: stopped and continued in turn, many times a second."""

import contextlib
import os
import signal
import threading
from types import TracebackType

_PERIOD = 0.05  # seconds


class Brake:
    """While it is on, the process runs only `share` of the time. Leaving lets it run freely again."""

    def __init__(self, pid: int, share: float = 0.2) -> None:
        self._pid, self._share = pid, share
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Brake":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._off.set()
        self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it may be killed meanwhile
            while not self._off.is_set():
                os.kill(self._pid, signal.SIGSTOP)
                self._off.wait(_PERIOD * (1 - self._share))
                os.kill(self._pid, signal.SIGCONT)
                self._off.wait(_PERIOD * self._share)
