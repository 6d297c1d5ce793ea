"""The cluster's machines: what Ray says of them, and how much memory processes on them find in use."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import ray

from actors.remote.faults import OwnFaults
from actors.remote.speeds import Speeds
from actors.vitals import HostMemory, NodeInfo

log = logging.getLogger("eightwinds.actors")

_MEMORY_SECONDS = 0.1  # for a process to say how much memory its machine has left


class Machines:
    """Asks one process on each machine for its memory, because Ray does not know it. A machine whose process does not
    answer at once keeps what was last seen. `speeds` are left out where they do not matter.
    """

    def __init__(self, speeds: Speeds | None) -> None:
        self._faults, self._speeds = OwnFaults(), speeds
        self._memory: dict[str, HostMemory] = {}  # by node

    def look(self, actors: Sequence[Any]) -> list[NodeInfo]:
        """The machines; `actors` are handles of processes, at least one on each machine that has any."""
        refs = [handle.memory.remote() for handle in actors]
        done, _ = ray.wait(refs, num_returns=len(refs), timeout=_MEMORY_SECONDS)
        found = [self._faults.answer(ref, "a process was asked for its machine's memory") for ref in done]
        self._memory = {**self._memory, **{memory.node_id: memory for memory in found if memory is not None}}
        return [
            replace(node, memory_total=known.total, memory_used=known.used if node.alive else 0)
            if (known := self._memory.get(node.node_id))
            else node
            for node in machines(self._speeds)
        ]


def machines(speeds: Speeds | None = None) -> list[NodeInfo]:
    """As Ray knows them: all memory is what Ray may reserve, and what is in use is not known."""
    free, public = free_by_node(), cast(Any, ray)  # its functions are not annotated
    alive = {node["NodeID"]: node["Resources"] for node in public.nodes() if node["Alive"]}
    known = speeds.of(alive) if speeds is not None and len(alive) > 1 else {}
    return [
        NodeInfo(
            node["NodeID"],
            node["NodeManagerAddress"],
            bool(node["Alive"]),
            free.get(node["NodeID"], {}),
            int(node["Resources"].get("GPU", 0)),
            int(node["Resources"].get("memory", 0)),
            speed=known.get(node["NodeID"], 0.0),
        )
        for node in public.nodes()
    ]


def free_by_node() -> dict[str, dict[str, float]]:
    """Unreserved resources by node. Ray's public interface sums them over all nodes, so this reads the internal
    function that Ray Serve reads, too. If a Ray lacks it, Ray's scheduler places every replica.
    """
    read = getattr(ray._private.state, "available_resources_per_node", None)
    if read is None:
        log.warning("Ray %s does not say what is free on each node: it places the replicas by itself", ray.__version__)
        return {}
    free: dict[str, dict[str, float]] = read()
    return free
