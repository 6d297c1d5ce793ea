"""A replica of an expert: its identity, and the table of all of them. Plain data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class ReplicaId(NamedTuple):
    """`index` tells an expert's replicas apart, and stays over restarts."""

    expert: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a replica for


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: a socket's file for the processes of its node, and TCP with CURVE for those of others
    ("" if it has no address that they could reach). Only callers that know the server's public `key` get an answer:
    ZeroMQ never sends it, and an address travels over Ray alone.
    """

    node_id: str
    file: str
    tcp: str = ""
    key: bytes = b""


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that holds an expert. A restarted process has the same `expert` and `index` and another
    `incarnation`. `endpoint` is how the transport reaches it, at first its actor's handle; `address` is where it
    listens, if it does.
    """

    expert: int
    index: int
    incarnation: str = ""
    endpoint: Any = field(default=None, compare=False, repr=False)
    address: Address | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> ReplicaId:
        return ReplicaId(self.expert, self.index)


Table = tuple[tuple[Replica, ...], ...]  # by expert


def one_each(endpoints: Sequence[Any]) -> Table:
    return tuple((Replica(expert, 0, "", endpoint),) for expert, endpoint in enumerate(endpoints))
