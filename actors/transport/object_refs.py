"""Expert calls as Ray actor calls; calls and replies are object refs of messages (actors/transport/rows.py)."""

import dataclasses
import time
from collections.abc import Collection, Sequence
from typing import Any

import ray

from actors.replica import Replica
from actors.transport.rows import HEADER_BYTES, Message, decode_header
from actors.transport.seam import ExpertCall, ExpertReply, encode_call
from model.wire import tensor_from

_STRAY_SECONDS = 0.1  # how often abandoned calls are looked after


class RayTransport:
    """A replica comes with its actor's handle; its endpoint is the bound `forward`. Refs live in the head, which waits
    for all of a layer's at once: Ray wakes it a single time. Rows come from the host's memory and are answered there.
    """

    def __init__(self) -> None:
        self._under_way: dict[int, Any] = {}  # refs by call id
        self._strays: dict[int, Any] = {}
        self._looked = 0.0

    def connect(self, replica: Replica) -> Replica:
        return dataclasses.replace(replica, endpoint=replica.endpoint.forward)

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """Encode all before the first is sent: from then on the experts compete for this machine's cores."""
        messages = [encode_call(call) for call in calls]
        for call, message in zip(calls, messages, strict=True):
            self._under_way[call.call_id] = call.replica.endpoint.remote(message)

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        replies = self._ended_strays()
        refs = [self._under_way[call_id] for call_id in call_ids]
        if refs and not first:  # the common case is one wait for all; an error of any of them raises, and so does time
            try:
                messages = ray.get(refs, timeout=timeout)
            except ray.exceptions.RayError:
                pass
            else:
                replies += [_reply(call_id, m) for call_id, m in zip(call_ids, messages, strict=True)]
                for call_id in call_ids:
                    del self._under_way[call_id]
        elif refs:
            ray.wait(refs, num_returns=1, timeout=timeout)
        return replies + _ended(self._under_way) if self._under_way else replies

    def abandon(self, call_ids: Collection[int]) -> None:
        for call_id in call_ids:
            if call_id in self._under_way:
                self._strays[call_id] = self._under_way.pop(call_id)

    def close(self) -> None:
        """Connections are Ray's."""

    def _ended_strays(self) -> list[ExpertReply]:
        if not self._strays or time.monotonic() < self._looked + _STRAY_SECONDS:
            return []
        self._looked = time.monotonic()
        return _ended(self._strays)


def _ended(calls: dict[int, Any]) -> list[ExpertReply]:
    """Take out the calls that have ended by now."""
    call_ids = {ref: call_id for call_id, ref in calls.items()}
    done, _ = ray.wait(list(call_ids), num_returns=len(call_ids), timeout=0)
    return [_fetch(call_ids[ref], calls.pop(call_ids[ref])) for ref in done]


def _fetch(call_id: int, ref: Any) -> ExpertReply:
    try:
        return _reply(call_id, ray.get(ref))
    except ray.exceptions.RayError as error:  # unavailable or dead; a task's own error comes here too
        return ExpertReply(call_id, None, error=str(error))


def _reply(call_id: int, message: Message) -> ExpertReply:
    h = decode_header(message)
    rows_RD = tensor_from(message, HEADER_BYTES, h.rows, h.columns, h.dtype_code)
    return ExpertReply(call_id, rows_RD, service_seconds=h.service_ns * 1e-9)
