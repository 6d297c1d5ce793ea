"""A stream that outlives its server: it is asked for again with the seed that the first answer reported, and what has
come already is dropped. The tokens are the same (docs/adr/0004-token-identity.md), so nothing is lost or repeated.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from cluster.client.client import Client, Request
from cluster.client.failures import CallFailed, failing_plainly

_UNAVAILABLE = 14
_PAUSE_SECONDS = 0.5
_PROMPT = -1  # stands for an output's index
# A message after the first one is sent for one of these.
_TOLD = {"text", "token_ids", "tokens", "prompt_tokens", "finish", "usage"}


class Resumption:
    """The answer to a request so far, and which parts of a stream that begins anew are new."""

    def __init__(self, request: Request) -> None:
        self._request = Request()
        self._request.CopyFrom(request)
        self.began = False
        self._received: Counter[tuple[str, int]] = Counter()  # how much has come, by field and output
        self._skip: Counter[tuple[str, int]] = Counter()  # how much of it comes again
        self._finished: set[int] = set()

    def again(self) -> Request:
        """The request to send, at first and whenever the stream has broken."""
        self._skip = self._received.copy()
        return self._request

    def new(self, message: Any) -> Any | None:
        """The message without what has come already; None if nothing is left of it."""
        if message.seed and not self.began:
            self._request.sampling.seed = message.seed
        message.text = message.text[self._known("text", message.index, len(message.text)) :]
        for field, index in (("token_ids", message.index), ("tokens", message.index), ("prompt_tokens", _PROMPT)):
            values = getattr(message, field)
            del values[: self._known(field, index, len(values))]
        if message.index in self._finished:
            message.ClearField("finish")
        if message.HasField("finish"):
            self._finished.add(message.index)
        told = any(field.name in _TOLD for field, _ in message.ListFields())
        first, self.began = not self.began, True
        return message if first or told else None

    def _known(self, field: str, index: int, count: int) -> int:
        """How many of a field's `count` values have come before."""
        known = min(self._skip[field, index], count)
        self._skip[field, index] -= known
        self._received[field, index] += count - known
        return known


def resuming(
    client: Client,
    request: Request,
    timeout: float | None,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Any]:
    """The messages of GenerateStream. When the server goes away after the first one it is asked again for up to
    `patience` seconds; `timeout` is for all of it. Raises CallFailed.
    """
    end = None if timeout is None else clock() + timeout
    state, broken_at = Resumption(request), None
    while True:
        try:
            with failing_plainly(client):
                for message in client.stream(state.again(), None if end is None else max(0.001, end - clock())):
                    broken_at = None
                    if (new := state.new(message)) is not None:
                        yield new
            return
        except CallFailed as error:
            now = clock()
            broken_at = broken_at or now
            if error.code != _UNAVAILABLE or not state.began or now - broken_at >= patience:
                raise
            if broken_at == now:
                print("eightwinds: the server went away; the stream goes on when it is back", file=sys.stderr)
            pause(_PAUSE_SECONDS)
