"""On which node a replica begins, and which one goes. Replicas of one expert are spread over nodes first, so that the
loss of a node leaves the expert a copy; then all replicas are, in proportion to the nodes' speeds, because the slowest
node decides how long a layer takes. Running replicas are never moved.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from actors.replica import ReplicaId
from actors.vitals import NodeInfo

_ALIKE = 0.75  # of the fastest node's speed: a difference below that may be one of the moment at which it was measured

Placed = Mapping[ReplicaId, str]  # the node of each replica, "" while it has none yet


def place(expert: int, nodes: Sequence[NodeInfo], placed: Placed, needs: Mapping[str, float]) -> str:
    """Of nodes that have what the replica needs the one with the fewest replicas of this expert, then the one that
    computes a call for each of its replicas soonest; "" if none fits: Ray then leaves the actor pending until one does.
    """
    pace = paces(nodes)

    def crowd(node: NodeInfo) -> tuple[int, float, int, str]:
        here = [replica_id for replica_id, node_id in placed.items() if node_id == node.node_id]
        same = sum(replica_id.expert == expert for replica_id in here)
        return same, (len(here) + 1) / pace[node.node_id], len(here), node.node_id

    fitting = [n for n in nodes if all(n.free.get(name, 0.0) >= amount for name, amount in needs.items() if amount)]
    return min(fitting, key=crowd).node_id if fitting else ""


def paces(nodes: Iterable[NodeInfo]) -> dict[str, float]:
    """Of each node: 1 for the fastest ones and those not measured, less for others."""
    speeds = {node.node_id: node.speed for node in nodes}
    fastest = max(speeds.values(), default=0.0)
    slow = {node_id: speed / fastest for node_id, speed in speeds.items() if 0 < speed < _ALIKE * fastest}
    return dict.fromkeys(speeds, 1.0) | slow


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
