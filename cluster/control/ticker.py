"""The thread of a control loop."""

import logging
import threading
from collections.abc import Callable


class Ticker:
    """Calls `turn` in a thread of its own, `pause()` seconds after it has returned (None: never) or when woken. A turn
    that raises is logged and the next one tries again: a bug of ours, or Ray's, does not end what runs.
    """

    def __init__(self, name: str, turn: Callable[[], object], pause: Callable[[], float | None]) -> None:
        self._name, self._turn, self._pause = name, turn, pause
        self._log = logging.getLogger(f"eightwinds.{name}")
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with a pause."""
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def stop(self, timeout: float = 15.0) -> None:
        """End the thread, after the turn that is under way if that ends within `timeout` seconds."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause())
            self._wake.clear()
            if self._stopping:
                return
            try:
                self._turn()
            except Exception:  # a bug of ours, or Ray's, must not end what runs
                self._log.exception("the %s failed", self._name)
