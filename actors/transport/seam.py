"""The seam between the router and the experts: calls out, replies back, in any order, so that retries, hedging, overlap
and other channels need no change above it. R: rows, D: hidden size.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from actors.replica import Replica
from actors.transport.rows import Message, RowsHeader, encode_rows
from model.wire import DTYPE_CODES, tensor_bytes


@dataclass(frozen=True, slots=True)
class ExpertCall:
    """Rows [R, D] of one layer for one replica of an expert. `call_id` is unique within the caller."""

    call_id: int
    layer: int
    replica: Replica
    rows_RD: torch.Tensor


def header_of(call: ExpertCall) -> RowsHeader:
    rows, columns = call.rows_RD.shape
    return RowsHeader(DTYPE_CODES[call.rows_RD.dtype], call.layer, rows, columns)


def encode_call(call: ExpertCall) -> Message:
    return encode_rows(header_of(call), tensor_bytes(call.rows_RD))


@dataclass(frozen=True, slots=True)
class ExpertReply:
    """The end of a call: rows [R, D], or why there are none, although they may have been computed. `service_seconds` is
    the expert's own time.
    """

    call_id: int
    rows_RD: torch.Tensor | None
    error: str = ""
    service_seconds: float = 0.0


class ExpertTransport(Protocol):
    """Replies come in any order. One thread uses a transport; another makes one of its own."""

    def connect(self, replica: Replica) -> Replica:
        """The replica with the endpoint that this transport's calls want, made from the one that it came with."""

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """Send calls. Over a network this returns before an expert has run; in one process the experts run here."""

    def poll(self, timeout: float, call_ids: Collection[int], first: bool = False) -> list[ExpertReply]:
        """Wait until all of these calls have ended, or with `first` one of them, at most `timeout` seconds. Returns the
        replies that have come, which may be those of other calls, too.
        """

    def close(self) -> None:
        """Let go of connections; it is not used any more."""

    def abandon(self, call_ids: Collection[int]) -> None:
        """Wait for these no longer. How they end is still reported by some later poll."""
