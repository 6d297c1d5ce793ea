"""On which node a replica begins, and which one goes. Replicas of one expert are spread over nodes first, so that the
loss of a node leaves the expert a copy; then all replicas are. Running replicas are never moved.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from actors.replica import ReplicaId
from actors.vitals import NodeInfo

Placed = Mapping[ReplicaId, str]  # the node of each replica, "" while it has none yet


def place(expert: int, nodes: Sequence[NodeInfo], placed: Placed, needs: Mapping[str, float]) -> str:
    """Of nodes that have what the replica needs the one with the fewest replicas of this expert, then the fewest of
    all; "" if none fits: Ray then leaves the actor pending until one does.
    """

    def crowd(node: NodeInfo) -> tuple[int, int, str]:
        here = [replica_id for replica_id, node_id in placed.items() if node_id == node.node_id]
        return sum(replica_id.expert == expert for replica_id in here), len(here), node.node_id

    fitting = [n for n in nodes if all(n.free.get(name, 0.0) >= amount for name, amount in needs.items() if amount)]
    return min(fitting, key=crowd).node_id if fitting else ""


def assign(
    replica_ids: Iterable[ReplicaId], nodes: Iterable[NodeInfo], placed: Placed, needs: Mapping[str, float]
) -> dict[ReplicaId, str]:
    """A node for each of these replicas, one after the other: see `place`."""
    left, there, found = {node.node_id: node for node in nodes}, dict(placed), dict[ReplicaId, str]()
    for replica_id in replica_ids:
        node_id = place(replica_id.expert, list(left.values()), there, needs)
        if node_id:
            free = left[node_id].free
            taken = {name: free.get(name, 0.0) - amount for name, amount in needs.items()}
            left[node_id] = replace(left[node_id], free={**free, **taken})
        there[replica_id] = found[replica_id] = node_id
    return found


def unused(expert: int, count: int, taken: Collection[ReplicaId]) -> list[ReplicaId]:
    """So many replicas of an expert that are not `taken`, the lowest indexes first."""
    every = (ReplicaId(expert, index) for index in range(len(taken) + count))
    return [replica_id for replica_id in every if replica_id not in taken][: max(0, count)]


def surplus(count: int, replicas: Placed, placed: Placed) -> list[ReplicaId]:
    """Which `count` replicas of one expert go: without a node, then those on a node with most of the same expert, then
    of all; the highest index of equal ones.
    """
    left, everybody, going = dict(replicas), dict(placed), list[ReplicaId]()

    def crowd(replica_id: ReplicaId) -> tuple[bool, int, int, int]:
        node_id = left[replica_id]
        same = sum(node == node_id for node in left.values())
        every = sum(node == node_id for node in everybody.values())
        return not node_id, same, every, replica_id.index

    while left and len(going) < count:
        going.append(max(left, key=crowd))
        del left[going[-1]], everybody[going[-1]]
    return going
