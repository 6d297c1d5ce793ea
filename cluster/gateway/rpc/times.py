"""Durations as protobuf messages, to the nanosecond."""

from google.protobuf import duration as durations
from google.protobuf.duration_pb2 import Duration


def duration(seconds: float) -> Duration:
    return durations.from_nanoseconds(int(seconds * 1e9))


def seconds(message: Duration) -> float:
    return message.ToNanoseconds() * 1e-9
