"""A server's processes: which there are, and what may happen to them."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil

from cluster.client.failures import CallFailed, failing_plainly
from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.integration.second_node import SecondNode
from tests.integration.server import Server

EVERY = range(8)
_PATIENCE = 120.0


class Victims:
    """Finds the processes of a running server, by what GetStatus says of them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client = server.client()

    def status(self) -> pb.GetStatusResponse:
        """GetStatus."""
        return self._client.cluster.GetStatus(pb.GetStatusRequest(), timeout=60)

    def ready(self, expert: int) -> list[pb.Replica]:
        """The replicas of an expert that are routed to."""
        return [r for r in self.status().experts[expert].replicas if r.state == pb.REPLICA_STATE_READY]

    def calls(self) -> tuple[int, int]:
        """Calls that were sent again, and hedged, since the head began."""
        loads = [expert.load for expert in self.status().experts]
        return sum(load.retry_count for load in loads), sum(load.hedge_count for load in loads)

    def head(self) -> int:
        """The head's process."""
        found = [pid for pid in self.server.actors() if _name(pid).startswith("ray::HeadActor")]
        assert len(found) == 1, f"heads: {found}"
        return found[0]

    def scale(self, counts: dict[int, int]) -> None:
        """Want so many replicas, and wait until they are there and no others."""
        self.want(counts)
        self.wait_ready(counts)

    def want(self, counts: dict[int, int]) -> None:
        """Want so many replicas."""
        wanted = [pb.ExpertScale(expert=e, replica_count=count) for e, count in counts.items()]
        self._client.cluster.ScaleExperts(pb.ScaleExpertsRequest(experts=wanted), timeout=60)

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

        return wait(settled, f"replicas {counts}", every=0.2)  # looking costs the streams something, too

    def wait_state(self, expert: int, pid: int, state: pb.ReplicaState.ValueType) -> float:
        """Wait until the replica of that process is in a state."""
        return wait(
            lambda: any(r.pid == pid and r.state == state for r in self.status().experts[expert].replicas),
            f"process {pid} of expert {expert} to be {pb.ReplicaState.Name(state)}",
        )

    def wait_node_gone(self, node_id: str) -> float:
        """Wait until no replica on a node is said to be ready; how many seconds it took."""

        def gone() -> bool:
            found = [r for expert in self.status().experts for r in expert.replicas if r.node_id == node_id]
            return not any(r.state == pb.REPLICA_STATE_READY for r in found)

        return wait(gone, f"no ready replica on {node_id}")

    def wait_gone(self, expert: int, pid: int) -> float:
        """Wait until a replica's process is no longer said to be ready; how many seconds it took."""
        return wait(lambda: all(r.pid != pid for r in self.ready(expert)), f"process {pid} to be seen as ended")

    def wait_served(self) -> float:
        """Wait until a new request is answered; when that was."""
        request = text_request("Once upon a time", Options(max_tokens=2))

        def answered() -> bool:
            with contextlib.suppress(CallFailed), failing_plainly(self._client):
                self._client.generate(request, timeout=30)
                return True
            return False

        wait(answered, "a new request to be served")
        return time.monotonic()

    def second_node(self) -> SecondNode:
        """Let another node join."""
        return SecondNode(self.server)

    def footprint(self) -> Counter[str]:
        """Actors, and what `serve` and the head hold: MiB, threads, file descriptors."""
        found = Counter(actors=len(self.server.actors()))
        for pid in (self.server.process.pid, self.head()):
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


def wait(condition: Callable[[], bool], what: str, every: float = 0.05) -> float:
    """Wait until it holds, looking `every` so many seconds; how many it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + _PATIENCE, f"{what}: not within {_PATIENCE:g} s"
        time.sleep(every)
    return time.monotonic() - begin


def _name(pid: int) -> str:
    return " ".join(psutil.Process(pid).cmdline())
