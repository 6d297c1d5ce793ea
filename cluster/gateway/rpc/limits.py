"""What gRPC itself is told to bound, and places for what may go on at once.

gRPC's own limits act before any of our code runs, and per connection; it says nothing of why. Ours come after them, for
all connections together, and are refused with a reason.
"""

from types import TracebackType

from cluster.gateway.errors import exhausted
from cluster.settings.config import LimitsSection


def channel_options(limits: LimitsSection, max_message_bytes: int) -> list[tuple[str, int]]:
    """The arguments of gRPC's server."""
    return [
        ("grpc.so_reuseport", 0),  # or a second server would silently share the port
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams),  # what was reset and is not yet cleared away counts, too
        # Calls that nobody has looked at yet. gRPC ends new ones at random above the first number, of every client
        # alike, and 1,000 are reached by one connection that opens and resets: so never before the streams' own limit.
        ("grpc.server.max_pending_requests", limits.connections * limits.streams),
        ("grpc.server.max_pending_requests_hard_limit", limits.connections * limits.streams),
        ("grpc.max_metadata_size", limits.header_bytes // 2),  # above it refused by chance, above the next one always
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        # The limits on a connection hold once it has acknowledged them: who does not soon is shut out.
        ("grpc.http2.settings_timeout", _milliseconds(limits.settings_s)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(limits.settings_s)),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.idle_s)),
        # No more of a message than this comes in before somebody reads it; else gRPC lets 4 MB of each call come.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1 << 16),
        # gRPC refuses without details, so our own limit comes first; beyond this nothing is kept.
        ("grpc.max_receive_message_length", min(max_message_bytes * 5 // 4 + 4096, 2**31 - 1)),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(limits.ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _milliseconds(seconds: float) -> int:
    return int(min(seconds * 1000, 2**31 - 1))


class Places:
    """A bound on what goes on at once. `with places:` takes one, or raises ApiError (RESOURCE_EXHAUSTED, RetryInfo)."""

    def __init__(self, most: int, reason: str, what: str) -> None:
        """`what` are many, as in `watches of health`."""
        self._most, self._reason, self._what = most, reason, what
        self.taken = 0

    def __enter__(self) -> None:
        if self.taken >= self._most:
            text = f"{self._most} {self._what} are under way, which is the most; try again later"
            raise exhausted(self._reason, text, 1.0)
        self.taken += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.taken -= 1
