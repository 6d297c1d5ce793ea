"""Expert calls in one process: the experts run when they are called."""

import time
from collections.abc import Collection, Sequence
from typing import Protocol

import torch

from actors.replica import Replica
from actors.transport.seam import ExpertCall, ExpertReply


class Applies(Protocol):
    """An expert in this process: `actors.expert.Expert`, or a test's."""

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor: ...


class LocalTransport:
    """The one-process mode, and the double that tests build on. A replica's endpoint is an `Applies`."""

    def __init__(self) -> None:
        self._replies: list[ExpertReply] = []

    def connect(self, replica: Replica) -> Replica:
        return replica

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        for call in calls:
            started = time.perf_counter()
            expert: Applies = call.replica.endpoint
            rows_RD = expert.apply(call.layer, call.rows_RD)
            took = time.perf_counter() - started
            self._replies.append(ExpertReply(call.call_id, rows_RD, service_seconds=took))

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        replies, self._replies = self._replies, []
        return replies

    def abandon(self, call_ids: Collection[int]) -> None:
        """Nothing is under way between two calls of this class."""

    def close(self) -> None:
        """There is no connection."""
