"""On which node a replica begins, and which one goes. Pure.

Replicas of one expert are spread over nodes first, so that the loss of a node leaves the expert a copy; then all
replicas are. Running replicas are never moved: what moves is a new one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that takes replicas, and what is free there."""

    node_id: str
    free: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """A replica and its node; "" while it has none yet."""

    expert: int
    slot: int
    node_id: str = ""


def place(expert: int, nodes: Sequence[Node], placed: Collection[Placed], needs: Mapping[str, float]) -> str:
    """The node with the fewest replicas of this expert, of those the one with the fewest of all, that has what the
    replica needs; "" if none has: Ray then waits for one, which its autoscaler may bring.
    """

    def crowd(node: Node) -> tuple[int, int, str]:
        here = [p for p in placed if p.node_id == node.node_id]
        return sum(p.expert == expert for p in here), len(here), node.node_id

    fitting = [n for n in nodes if all(n.free.get(name, 0.0) >= amount for name, amount in needs.items() if amount)]
    return min(fitting, key=crowd).node_id if fitting else ""


def missing(there: Collection[tuple[int, int]], experts: int, count: int) -> list[tuple[int, int]]:
    """Replicas (expert, slot) to start so that each expert has `count`, in slots that are free; with more than that
    there is nothing to start.
    """
    found = list[tuple[int, int]]()
    for expert in range(experts):
        taken = {slot for e, slot in there if e == expert}
        free = (slot for slot in range(len(taken) + count) if slot not in taken)
        found += [(expert, next(free)) for _ in range(count - len(taken))]
    return found


def assign(
    keys: Sequence[tuple[int, int]], nodes: Sequence[Node], placed: Collection[Placed], needs: Mapping[str, float]
) -> dict[tuple[int, int], str]:
    """A node for each of these replicas (expert, slot), one after the other: see `place`."""
    free = {node.node_id: dict(node.free) for node in nodes}
    there, found = list(placed), dict[tuple[int, int], str]()
    for expert, slot in keys:
        node_id = place(expert, [Node(name, left) for name, left in free.items()], there, needs)
        for name, amount in needs.items() if node_id else ():
            free[node_id][name] = free[node_id].get(name, 0.0) - amount
        there.append(Placed(expert, slot, node_id))
        found[expert, slot] = node_id
    return found


def surplus(count: int, replicas: Sequence[Placed], placed: Collection[Placed]) -> list[Placed]:
    """Which `count` replicas of one expert go: those without a node, then those that share theirs with most of the same
    expert, then of all; the highest slot of equal ones.
    """
    left, everybody, going = list(replicas), list(placed), list[Placed]()

    def crowd(replica: Placed) -> tuple[bool, int, int, int]:
        same = sum(p.node_id == replica.node_id for p in left)
        every = sum(p.node_id == replica.node_id for p in everybody)
        return not replica.node_id, same, every, replica.slot

    for _ in range(min(count, len(left))):
        going.append(max(left, key=crowd))
        left.remove(going[-1])
        everybody.remove(going[-1])
    return going
