"""A Ray cluster on several hosts with `eightwinds serve` on the first, and what is looked at and done from outside.

The first host has Ray's head node and the server; the others are workers, and only they can take the head actor, so
that a scenario can lose its host. Ray's own defaults notice a host that hangs after a minute, `TUNED` after seconds.
"""

import abc
import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from cluster.client.client import Client
from protos.eightwinds.v1 import cluster_pb2 as pb
from tests.multihost.hosts import PYTHON, Host, Hosts
from tests.multihost.serve_process import ENVIRONMENT, Serve, wait

PORT = 6379
EXPERTS = 8
TUNED = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
}
SYSTEM_CONFIG = {
    "max_direct_call_object_size": 524288,
    "timeout_ms_task_wait_for_death_info": 100,
    "core_worker_internal_heartbeat_ms": 200,
}


class Cluster(abc.ABC):
    """Ray on its `members`, the first of them with Ray's head node and a server. `close` only lets go: the hosts' end
    is theirs, too.
    """

    def __init__(self, hosts: Hosts, members: Sequence[Host]) -> None:
        self._hosts, self.members = hosts, list(members)
        self.serves: list[Serve] = []

    def begin(self, connect: Callable[[str], Client] = Client) -> None:
        """Start the server; the client has another connection than that of the streams."""
        self.serves.append(self.serve().wait_ready())
        self.client = connect(self.serves[0].address)

    @abc.abstractmethod
    def join(self, host: Host) -> None:
        """Let a host that has booted take part again."""

    @abc.abstractmethod
    def serve(self) -> Serve:
        """Start a server on the first host."""

    @property
    def workers(self) -> list[Host]:
        """All hosts but the first."""
        return self.members[1:]

    def add(self, disk: str = "") -> Host:
        """Let a new host join, with a disk of such a size, or what there is."""
        self.members.append(self._hosts.add(disk))
        self.join(self.members[-1])
        return self.members[-1]

    @contextlib.contextmanager
    def stranger(self) -> Iterator[Host]:
        """A host that takes no part."""
        host = self._hosts.add()
        yield host
        self._hosts.remove(host)

    def retire(self, host: Host) -> None:
        """Have one replica of each expert, none of them on the host, and take it away."""
        self.scale(1)
        self.client.drain(self.node_of(host), 120.0)
        self.wait_empty(host)
        self.remove(host)

    def remove(self, host: Host) -> None:
        """Take a host away for good."""
        self.members.remove(host)
        self._hosts.remove(host)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    # ---- what there is ----

    def status(self) -> pb.GetStatusResponse:
        """GetStatus."""
        return self.client.status(timeout=60)

    def node_of(self, host: Host) -> str:
        """The id of the host's node, the living one if it joined several times; "" if none lives."""
        nodes = [node for node in self.status().nodes if node.address == host.address]
        return next((node.id for node in nodes if node.state != pb.Node.STATE_LOST), "")

    def replicas(self, host: Host | None = None) -> list[tuple[int, pb.Replica]]:
        """Each replica with its expert; of one host only, if it is given."""
        found = [(expert.expert, replica) for expert in self.status().experts for replica in expert.replicas]
        node = self.node_of(host) if host else ""
        return [(expert, replica) for expert, replica in found if host is None or replica.node_id == node]

    def actors(self, host: Host | None = None) -> set[tuple[str, int]]:
        """The processes of head and experts, of one host or of all: the host's name and the process id."""
        found = set()
        for where in [host] if host else self.members:
            for process in where.processes():
                with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
                    if " ".join(process.cmdline()).startswith(("ray::HeadActor", "ray::ExpertActor")):
                        found.add((where.name, process.pid))
        return found

    def head_host(self) -> Host:
        """Where the head actor runs."""
        wait(lambda: bool(self.status().heads[0].node_id), "the head to answer")
        node = self.status().heads[0].node_id
        return next(host for host in self.members if host.up and self.node_of(host) == node)

    def other_worker(self) -> Host:
        """A worker host on which the head actor does not run."""
        head = self.head_host()
        return next(host for host in self.workers if host is not head)

    # ---- what is done ----

    def scale(self, count: int) -> float:
        """Want so many replicas of each expert, and wait for them; how many seconds it took."""
        self.client.scale(dict.fromkeys(range(EXPERTS), count))
        return self.wait_replicas(count)

    def spread(self) -> None:
        """Two replicas of each expert, on different hosts, all hosts having some."""
        self.scale(1)
        self.scale(2)
        places = [{r.node_id for r in expert.replicas} for expert in self.status().experts]
        assert all(len(place) == 2 for place in places), f"two replicas of an expert share a host: {places}"

    def wait_replicas(self, count: int, gone: Host | None = None) -> float:
        """Wait until each expert has so many replicas, all ready, none of them on the node that `gone` was."""
        lost = {node.id for node in self.status().nodes if gone and node.address == gone.address}

        def settled() -> bool:
            experts = self.status().experts
            return all(
                len(e.replicas) == count
                and all(r.state == pb.REPLICA_STATE_READY and r.node_id not in lost for r in e.replicas)
                for e in experts
            )

        return wait(settled, f"{count} replicas of each expert", self._story)

    def wait_lost(self, host: Host) -> float:
        """Wait until Ray has given the host up; how many seconds it took."""
        return wait(lambda: not self.node_of(host), f"{host.name} to be given up", self._story)

    def wait_lost_address(self, address: str) -> float:
        """Wait until Ray has given up whatever had this address."""
        lost = pb.Node.STATE_LOST
        return wait(
            lambda: all(node.state == lost for node in self.status().nodes if node.address == address),
            f"{address} to be given up",
            self._story,
        )

    def wait_node(self, host: Host) -> float:
        """Wait until the host's node takes part."""
        return wait(lambda: bool(self.node_of(host)), f"{host.name} to take part", self._story)

    def wait_on(self, host: Host, count: int) -> float:
        """Wait until so many replicas on the host are ready, and all others are, too."""

        def there() -> bool:
            every = all(replica.state == pb.REPLICA_STATE_READY for _, replica in self.replicas())
            return every and len(self.replicas(host)) == count

        return wait(there, f"{count} replicas on {host.name}", self._story)

    def wait_empty(self, host: Host) -> float:
        """Wait until the host has no replica, and no process of one; how many seconds it took."""
        return wait(lambda: not self.replicas(host) and not self.actors(host), f"{host.name} to be empty", self._story)

    def wait_head(self, restarts: int) -> float:
        """Wait until the head has been restarted so often, and answers."""

        def back() -> bool:
            head = self.status().heads[0]
            return head.restart_count >= restarts and head.state == pb.REPLICA_STATE_READY

        return wait(back, f"restart {restarts} of the head", self._story)

    def _story(self) -> str:
        return f"{self.status()}\n{self.serves[-1].log.read_text()[-4000:]}"


class PlainCluster(Cluster):
    """Ray is started by hand on all hosts, and the server has these settings, without TLS and tokens. The `environment`
    is that of all of Ray's processes and the server, `detection` that of Ray's head node.
    """

    def __init__(
        self,
        hosts: Hosts,
        settings: Sequence[str] = (),
        detection: Mapping[str, str] = TUNED,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(hosts, hosts.all)
        self._environment = dict(environment or {})
        self._arguments = [f"--ray-address={hosts.all[0].address}:{PORT}"]
        self._arguments += [word for setting in settings for word in ("--set", setting)]
        system = f"--system-config={json.dumps(SYSTEM_CONFIG)}"
        head = ["--head", "--include-dashboard=false", f"--port={PORT}", system]
        start_ray(hosts.all[0], *head, environment=self._environment | dict(detection))
        with ThreadPoolExecutor() as pool:
            list(pool.map(self.join, self.workers))
        self.begin()

    def join(self, host: Host) -> None:
        """By `ray start`."""
        address = f"--address={self.members[0].address}:{PORT}"
        start_ray(host, address, '--resources={"worker": 1}', environment=self._environment)

    def serve(self) -> Serve:
        """With the settings."""
        return Serve(self.members[0], *self._arguments, environment=self._environment)


def start_ray(host: Host, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """`ray start` on a host. One CPU: Ray starts a spare process for each."""
    command = [PYTHON, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={host.address}", "--num-cpus=1"]
    command += ["--object-store-memory=150000000", *arguments]
    host.run(*command, environment=ENVIRONMENT | dict(environment or {}))


def keep_logs(hosts: Hosts, folder: Path) -> None:
    """Copy what the servers said, and Ray's logs of each host."""
    for host in hosts.all:
        there = host.disk / "tmp"
        for log in [*there.glob("serve-*.log"), *there.glob("ray/session_2*/logs/*.*")]:
            kept = folder / host.name / log.relative_to(there)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(log, kept)
