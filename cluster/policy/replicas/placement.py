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
    """Of each node: 1 for the fastest ones, less for others; one that was not measured is taken for a middling one."""
    speeds = {node.node_id: node.speed for node in nodes}
    measured = sorted(speed for speed in speeds.values() if speed > 0)
    if not measured:
        return dict.fromkeys(speeds, 1.0)
    fastest, middling = measured[-1], measured[(len(measured) - 1) // 2]
    shares = {node_id: (speed or middling) / fastest for node_id, speed in speeds.items()}
    return {node_id: share if share < _ALIKE else 1.0 for node_id, share in shares.items()}


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


def surplus(count: int, replicas: Placed, placed: Placed, pace: Mapping[str, float] | None = None) -> list[ReplicaId]:
    """Which `count` replicas of one expert go: without a node, then those on a node with most of the same expert, then
    those whose node would compute a call for each of its replicas last; the highest index of equal ones. Nodes without
    a known pace are as fast as any.
    """
    left, everybody, going, pace = dict(replicas), dict(placed), list[ReplicaId](), pace or {}

    def crowd(replica_id: ReplicaId) -> tuple[bool, int, float, int]:
        node_id = left[replica_id]
        same = sum(node == node_id for node in left.values())
        every = sum(node == node_id for node in everybody.values())
        return not node_id, same, every / pace.get(node_id, 1.0), replica_id.index

    while left and len(going) < count:
        going.append(max(left, key=crowd))
        del left[going[-1]], everybody[going[-1]]
    return going
