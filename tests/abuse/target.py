"""Whom an abuse is aimed at, and for how long."""

import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is: HOST:PORT of its gRPC and of its HTTP; and mallory's token, which strangers do not use."""

    address: str
    http: str
    token: str = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of mallory's calls."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


def until(seconds: float) -> Iterator[int]:
    """Numbers from 0 on, for so long."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        yield number
        number += 1
