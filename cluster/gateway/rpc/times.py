"""Times as messages."""

from datetime import UTC, datetime

from google.protobuf import duration_pb2, timestamp_pb2


def duration(seconds: float) -> duration_pb2.Duration:
    """A span."""
    message = duration_pb2.Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message


def now() -> timestamp_pb2.Timestamp:
    """This moment."""
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(datetime.now(UTC))
    return message
