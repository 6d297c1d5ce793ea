"""The changes that turn the replicas there are into the replicas that are wanted."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from actors.replica import ReplicaId
from cluster.policy.replicas.lifecycle import Member, State
from cluster.policy.replicas.placement import surplus, unused


@dataclass(frozen=True, slots=True)
class Change:
    """A replica to start, or else to retire."""

    id: ReplicaId
    node_id: str
    start: bool


def reconcile(
    desired: Mapping[int, int],
    members: Iterable[Member],
    avoided: Collection[str],
    pace: Mapping[str, float] | None = None,
) -> list[Change]:
    """Starts and ends, after which each expert has its desired count and no replica is on an avoided node. One that
    is there is retired only after its successor is READY.
    """
    members = sorted(members, key=lambda member: member.id)
    staying = {m.id: m.node_id for m in members if m.state is not State.RETIRING}
    changes: list[Change] = []
    for expert, count in desired.items():
        mine = [m for m in members if m.id.expert == expert]
        there = [m for m in mine if m.id in staying and m.node_id not in avoided]
        moving = [m for m in mine if m.id in staying and m.node_id in avoided]
        ready = {m.id: m.node_id for m in there if m.state is State.READY}
        others = {m.id: m.node_id for m in there if m.state is not State.READY}
        changes += [Change(new, "", True) for new in unused(expert, count - len(there), [m.id for m in mine])]
        replaced = max(0, len(ready) + len(moving) - count)
        changes += [Change(m.id, m.node_id, False) for m in moving[:replaced]]
        extra = len(there) - count
        for some in (others, ready):
            going = surplus(extra, some, staying, pace)
            extra -= len(going)  # popped: so that the next ones do not all leave the same node
            changes += [Change(replica_id, staying.pop(replica_id), False) for replica_id in going]
    return changes
