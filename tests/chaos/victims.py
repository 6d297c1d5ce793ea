"""A server's processes: which there are, and what may happen to them."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.integration.second_node import SecondNode
from tests.integration.server import Server

_PATIENCE = 120.0


class Victims:
    """Finds the processes of a running server, by what GetStatus says of them."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._client = server.client()

    def status(self) -> pb.GetStatusResponse:
        """GetStatus."""
        return self._client.cluster.GetStatus(pb.GetStatusRequest(), timeout=60)

    def ready(self, expert: int) -> list[pb.Replica]:
        """The replicas of an expert that are routed to."""
        return [r for r in self.status().experts[expert].replicas if r.state == pb.REPLICA_STATE_READY]

    def head(self) -> int:
        """The head's process."""
        found = [pid for pid in self._server.actors() if _name(pid).startswith("ray::HeadActor")]
        assert len(found) == 1, f"heads: {found}"
        return found[0]

    def scale(self, counts: dict[int, int]) -> None:
        """Want so many replicas, and wait until they are there and no others."""
        wanted = [pb.ExpertScale(expert=e, replica_count=count) for e, count in counts.items()]
        self._client.cluster.ScaleExperts(pb.ScaleExpertsRequest(experts=wanted), timeout=60)
        self.wait_ready(counts)

    def drain(self, node_id: str) -> None:
        """Drain a node, and wait until no replica is there."""
        self._client.drain(node_id, _PATIENCE)
        wait(
            lambda: not any(r.node_id == node_id for e in self.status().experts for r in e.replicas),
            f"no replica on {node_id}",
        )

    def wait_ready(self, counts: dict[int, int]) -> float:
        """Wait until these experts have so many replicas, all ready; how many seconds it took."""

        def settled() -> bool:
            experts = self.status().experts
            return all(
                len(experts[e].replicas) == count
                and all(r.state == pb.REPLICA_STATE_READY for r in experts[e].replicas)
                for e, count in counts.items()
            )

        return wait(settled, f"replicas {counts}")

    def wait_state(self, expert: int, pid: int, state: pb.ReplicaState.ValueType) -> float:
        """Wait until the replica of that process is in a state."""
        return wait(
            lambda: any(r.pid == pid and r.state == state for r in self.status().experts[expert].replicas),
            f"process {pid} of expert {expert} to be {pb.ReplicaState.Name(state)}",
        )

    def second_node(self) -> SecondNode:
        """Let another node join."""
        return SecondNode(self._server)

    def footprint(self) -> Counter[str]:
        """Actors, and what `serve` and the head hold: MiB, threads, file descriptors."""
        found = Counter(actors=len(self._server.actors()))
        for pid in (self._server.process.pid, self.head()):
            process = psutil.Process(pid)
            with process.oneshot():
                found["MiB"] += process.memory_info().rss >> 20
                found["threads"] += process.num_threads()
                found["descriptors"] += process.num_fds()
        return found


def send(pid: int, signum: signal.Signals) -> float:
    """Send a signal; when that was."""
    os.kill(pid, signum)
    return time.monotonic()


def wait(condition: Callable[[], bool], what: str) -> float:
    """Wait until it holds; how many seconds it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + _PATIENCE, f"{what}: not within {_PATIENCE:g} s"
        time.sleep(0.05)
    return time.monotonic() - begin


def _name(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline())
