"""Times as protobuf messages."""

from datetime import UTC, datetime

from google.protobuf import duration_pb2, timestamp_pb2


def duration(seconds: float) -> duration_pb2.Duration:
    """Seconds as a Duration."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def now() -> timestamp_pb2.Timestamp:
    """The time now as a Timestamp."""
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(datetime.now(UTC))
    return message
