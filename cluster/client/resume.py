"""A stream that outlives its server: it is asked for again with the seed that the first answer reported, and what has
come already is dropped. The tokens are the same (docs/adr/0004-token-identity.md), so nothing is lost or repeated.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cluster.client.client import Client, Request
from cluster.client.failures import CallFailed, failing_plainly

_UNAVAILABLE = 14
_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class _Received:
    """How much of an output has come: characters, ids and token infos."""

    text: int = 0
    token_ids: int = 0
    tokens: int = 0


class Resumption:
    """What has come of a request, and which parts of a stream that begins anew are new."""

    def __init__(self, request: Request) -> None:
        self.request = Request()
        self.request.CopyFrom(request)
        self._received: dict[int, _Received] = {}
        self._skip: dict[int, _Received] = {}
        self._finished: set[int] = set()
        self._began = False
        self._prompt = self._skip_prompt = 0  # tokens of the prompt: how many have come, how many come again

    def again(self) -> Request:
        """The request to send after the stream has broken."""
        self._skip = {index: _Received(r.text, r.token_ids, r.tokens) for index, r in self._received.items()}
        self._skip_prompt = self._prompt
        return self.request

    def new(self, message: Any) -> Any | None:
        """The message without what has come already; None if nothing is left of it."""
        if message.seed and not self._began:
            self.request.sampling.seed = message.seed
        first = not self._began
        self._began = True
        skip = self._skip.get(message.index, _Received())
        text, ids, tokens = (
            min(skip.text, len(message.text)),
            min(skip.token_ids, len(message.token_ids)),
            min(skip.tokens, len(message.tokens)),
        )
        skip.text, skip.token_ids, skip.tokens = skip.text - text, skip.token_ids - ids, skip.tokens - tokens
        message.text = message.text[text:]
        del message.token_ids[:ids]
        del message.tokens[:tokens]
        known = self._received.setdefault(message.index, _Received())
        known.text += len(message.text)
        known.token_ids += len(message.token_ids)
        known.tokens += len(message.tokens)
        if message.index in self._finished:
            message.ClearField("finish")
        finish = message.HasField("finish")
        if finish:
            self._finished.add(message.index)
        again = min(self._skip_prompt, len(message.prompt_tokens))
        del message.prompt_tokens[:again]
        self._skip_prompt -= again
        self._prompt += len(message.prompt_tokens)
        new = (
            first
            or finish
            or message.prompt_tokens
            or message.HasField("usage")
            or message.text
            or message.token_ids
            or message.tokens
        )
        return message if new else None


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
    state, wanted, broken_at = Resumption(request), request, None
    begun = False
    while True:
        try:
            with failing_plainly(client):
                for message in client.stream(wanted, None if end is None else max(0.001, end - clock())):
                    begun, broken_at = True, None
                    if (new := state.new(message)) is not None:
                        yield new
            return
        except CallFailed as error:
            now = clock()
            broken_at = broken_at or now
            if error.code != _UNAVAILABLE or not begun or now - broken_at >= patience:
                raise
            if broken_at == now:
                print("eightwinds: the server went away; the stream goes on when it is back", file=sys.stderr)
            pause(_PAUSE_SECONDS)
            wanted = state.again()
