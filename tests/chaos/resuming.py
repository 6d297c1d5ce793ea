"""Streams of our own client, which go on when a killed `serve` has been replaced."""

import itertools
import threading
import time

from cluster.client.client import Client
from cluster.client.failures import CallFailed
from cluster.client.resume import resuming
from tests.chaos.streams import DEADLINE, Streams, Tally

_UNAVAILABLE = 14
_PATIENCE = 60.0


class ResumingStreams:
    """As many streams as `streams` has, of the same requests, a thread each."""

    def __init__(self, streams: Streams) -> None:
        self._streams, self._stopping = streams, threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> Tally:
        """Begin; the tally fills while they run."""
        tally, numbers, lock = Tally(), itertools.count(), threading.Lock()

        def one_after_the_other() -> None:
            with Client(self._streams.address) as client:
                while not self._stopping.is_set():
                    with lock:
                        number = next(numbers) % len(self._streams.requests)
                    self._ask(client, number, tally, lock)

        self._threads = [
            threading.Thread(target=one_after_the_other, daemon=True) for _ in range(self._streams.at_once)
        ]
        for thread in self._threads:
            thread.start()
        return tally

    def stop(self) -> None:
        """Let what is under way end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(DEADLINE + _PATIENCE)
            assert not thread.is_alive(), "a stream hangs"

    def _ask(self, client: Client, number: int, tally: Tally, lock: threading.Lock) -> None:
        request = self._streams.requests[number]
        while True:
            ids: list[list[int]] = [[] for _ in range(request.n or 1)]
            arrivals: list[float] = []
            try:
                for message in resuming(client, request, DEADLINE, _PATIENCE):
                    arrivals.append(time.monotonic())
                    ids[message.index].extend(message.token_ids)
            except CallFailed as error:
                with lock:
                    if error.code == _UNAVAILABLE and not arrivals:  # it was never taken in: whoever asks, asks again
                        tally.refused += 1
                        again = True
                    else:
                        tally.failed.append(error.text)
                        again = False
                if again:
                    time.sleep(0.1)
                    continue
                return
            with lock:
                tally.note(arrivals, tuple(map(tuple, ids)), self._streams.expected[number])
            return
