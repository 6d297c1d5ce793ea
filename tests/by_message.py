"""Experts in this process that are sent bytes and answer with bytes, as over Ray."""

from collections.abc import Sequence

from actors.transport.local import LocalTransport
from actors.transport.rows import HEADER_BYTES, decode_header
from actors.transport.seam import ExpertCall, ExpertReply, encode_call
from model.wire import tensor_from


class ByMessage(LocalTransport):
    """A replica's endpoint is an `actors.expert.Expert`; rows are the host's, on whatever device it computes."""

    def submit(self, calls: Sequence[ExpertCall]) -> None:
        """See `ExpertTransport`."""
        for call in calls:
            message = call.replica.endpoint.forward(encode_call(call))
            h = decode_header(message)
            rows_RD = tensor_from(message, HEADER_BYTES, h.rows, h.columns, h.dtype_code)
            self._replies.append(ExpertReply(call.call_id, rows_RD, service_seconds=h.service_ns * 1e-9))
