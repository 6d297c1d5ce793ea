"""How expert calls reach experts: one seam, `submit` and `poll`, and its in-process implementation.

The seam is asynchronous so that hedging, overlap and other channels need no change above it. The one over Ray is
`actors.remote.RayTransport`. R: rows, D: hidden size.
"""

import collections
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """All rows [R, D] that one expert gets of one layer. `call_id` is unique within the caller."""

    call_id: int
    layer: int
    expert: int
    replica: int
    rows_RD: torch.Tensor


@dataclass(frozen=True, slots=True)
class ExpertReply:
    """The end of a call: rows [R, D], or the reason why there are none.

    `lost` says that Ray knows the replica's process to be gone; without it the failure may be the network's, or
    the answer may yet have been computed. `service_seconds` is the expert's own time.
    """

    call_id: int
    rows_RD: torch.Tensor | None
    error: str = ""
    lost: bool = False
    service_seconds: float = 0.0


class ExpertTransport(Protocol):
    """Sends calls and collects replies. Replies may come in any order; a call may end in an error."""

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """Send calls; it never blocks on the experts."""
        ...

    def poll(self, timeout: float) -> list[ExpertReply]:
        """Replies of all calls under way, or those that came within `timeout` seconds."""
        ...


class Applies(Protocol):
    """An expert in this process: `actors.expert.Expert`, or a test's."""

    def apply(self, layer: int, rows_RD: torch.Tensor) -> torch.Tensor:
        """Rows in, as many rows out."""
        ...


class LocalTransport:
    """Experts in this process, run when called: the one-process mode, and the double that tests build on."""

    def __init__(self, experts: Sequence[Applies]) -> None:
        self._experts = experts
        self._replies: collections.deque[ExpertReply] = collections.deque()

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """See `ExpertTransport`."""
        for call in calls:
            started = time.perf_counter()
            rows_RD = self._experts[call.expert].apply(call.layer, call.rows_RD)
            took = time.perf_counter() - started
            self._replies.append(ExpertReply(call.call_id, rows_RD, service_seconds=took))

    def poll(self, timeout: float) -> list[ExpertReply]:
        """See `ExpertTransport`."""
        replies = list(self._replies)
        self._replies.clear()
        return replies
