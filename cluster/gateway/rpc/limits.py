"""gRPC's own limits, which act per connection, before any of our code runs, and without a reason."""

from cluster.settings.sections import LimitsSection


def channel_options(limits: LimitsSection, max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # or a second server would silently share the port
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams),  # a stream that was reset counts until it is cleared away
        # Calls that have not reached Python yet. Above the first number gRPC ends new calls of any client at random,
        # and one connection that opens and resets streams reaches the default, 1,000. The streams' limit comes first.
        ("grpc.server.max_pending_requests", limits.connections * limits.streams),
        ("grpc.server.max_pending_requests_hard_limit", limits.connections * limits.streams),
        # Above the first number headers are refused by chance, above the second always.
        ("grpc.max_metadata_size", limits.header_bytes // 2),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        # A connection is bound by its limits once it has acknowledged them, so it is closed if it does not soon.
        ("grpc.http2.settings_timeout", _milliseconds(limits.settings_s)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(limits.settings_s)),
        ("grpc.max_connection_idle_ms", _milliseconds(limits.idle_s)),
        # The bytes of a message that gRPC takes in before a handler reads; with its default they are 4 MB of each call.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1 << 16),
        # gRPC refuses without details, so our own limit comes first; beyond this no message is kept.
        ("grpc.max_receive_message_length", min(max_message_bytes * 5 // 4 + 4096, 2**31 - 1)),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(limits.ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _milliseconds(seconds: float) -> int:
    return int(min(seconds * 1000, 2**31 - 1))
