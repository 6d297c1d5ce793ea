"""A replica of an expert: its identity, and the table of all of them. Plain data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Key = tuple[int, int]  # a replica: its expert and its slot among that expert's replicas


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that holds an expert. `slot` tells an expert's replicas apart and stays over restarts,
    `incarnation` does not. `endpoint` is how the transport reaches it.
    """

    expert: int
    slot: int
    incarnation: str = ""
    endpoint: Any = field(default=None, compare=False, repr=False)


Table = tuple[tuple[Replica, ...], ...]  # by expert


def one_each(endpoints: Sequence[Any]) -> Table:
    """A table of one replica per expert."""
    return tuple((Replica(expert, 0, "", endpoint),) for expert, endpoint in enumerate(endpoints))
