"""Expert calls as Ray actor calls; calls and replies are object refs of messages (actors/transport/rows.py)."""

import time
from collections.abc import Collection, Sequence
from typing import Any

import ray

from actors.transport.rows import HEADER_BYTES, Message, decode_header
from actors.transport.seam import ExpertCall, ExpertReply, encode_call
from model.wire import tensor_from

_STRAY_SECONDS = 0.1  # how often abandoned calls are looked after


class RayTransport:
    """A replica's endpoint is its actor's bound `forward`, ready for `.remote(message)`.

    Refs live in the head, which waits for all of a layer's at once: Ray wakes it a single time. Rows come from the
    host's memory and are answered there. See `actors.transport.seam.ExpertTransport`.
    """

    def __init__(self) -> None:
        self._under_way: dict[Any, int] = {}  # call ids by ref
        self._strays: dict[Any, int] = {}
        self._looked = 0.0

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """See `ExpertTransport`. All are encoded before the first is sent: from then on the experts compete for this
        machine's cores.
        """
        messages = [encode_call(call) for call in calls]
        refs = [call.replica.endpoint.remote(m) for call, m in zip(calls, messages, strict=True)]
        self._under_way.update(zip(refs, (call.call_id for call in calls), strict=True))

    def poll(self, timeout: float, first: bool = False) -> list[ExpertReply]:
        """See `ExpertTransport`."""
        strays, refs = self._ended_strays(), list(self._under_way)
        if not refs:
            return strays
        if first:
            ray.wait(refs, num_returns=1, timeout=timeout)
        else:  # the common case is one wait for all; an error of any of them raises, and so does the timeout
            try:
                messages = ray.get(refs, timeout=timeout)
            except ray.exceptions.RayError:
                pass
            else:
                call_ids = list(self._under_way.values())
                self._under_way.clear()
                return strays + [self._reply(call_id, m) for call_id, m in zip(call_ids, messages, strict=True)]
        return strays + self._ended(self._under_way)

    def abandon(self, call_ids: Collection[int]) -> None:
        """See `ExpertTransport`."""
        for ref in [ref for ref, call_id in self._under_way.items() if call_id in call_ids]:
            self._strays[ref] = self._under_way.pop(ref)

    def _ended_strays(self) -> list[ExpertReply]:
        if not self._strays or time.monotonic() < self._looked + _STRAY_SECONDS:
            return []
        self._looked = time.monotonic()
        return self._ended(self._strays)

    def _ended(self, calls: dict[Any, int]) -> list[ExpertReply]:
        """Take out what has come by now."""
        done, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [self._fetch(ref, calls.pop(ref)) for ref in done]

    def _fetch(self, ref: Any, call_id: int) -> ExpertReply:
        try:
            return self._reply(call_id, ray.get(ref))
        except ray.exceptions.RayError as error:  # unavailable or dead; a task's own error comes here too
            return ExpertReply(call_id, None, error=str(error))

    def _reply(self, call_id: int, message: Message) -> ExpertReply:
        h = decode_header(message)
        rows_RD = tensor_from(message, HEADER_BYTES, h.rows, h.columns, h.dtype_code)
        return ExpertReply(call_id, rows_RD, service_seconds=h.service_ns * 1e-9)
