"""`ray up ray_config.yaml` over ssh onto three hosts from nothing, a secured server there that is asked from a fourth
host, and what happens to its hosts under load. The steps are those of docs/operations.md ("A cluster of several
hosts"), word by word but for the set-up command.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Sequence

import grpc
import psutil

from cluster.client.client import Client
from cluster.client.tls import Tls
from protos.eightwinds.v1 import inference_pb2 as inference
from tests.chaos.stage import Row
from tests.chaos.streams import Streams, Tally
from tests.multihost.cluster import Cluster
from tests.multihost.hosts import Host, Hosts
from tests.multihost.operator_host import (
    CONFIG,
    ENVIRONMENT,
    PROMPTS,
    ask,
    join_by_hand,
    let_in,
    nodes,
    on,
    prepare,
    texts_on_one_host,
)
from tests.multihost.scenarios import ON_RAY_UP
from tests.multihost.serve_process import Serve, wait
from tests.multihost.stage import Stage
from tests.multihost.strangers import refused, scanned

_RAY = ("raylet", "gcs_server", "ray::", "ray.autoscaler", "ray/dashboard")
_QUIET_SECONDS = 10.0
_UP = f"cd /root/eightwinds && ray up -y --no-config-cache {CONFIG}"
NAME = "ray up, serve with TLS and tokens, ray down"


def lacks() -> str:
    """What this machine lacks for it beyond hosts, or ""."""
    tools = {"/usr/sbin/sshd": "openssh-server", "ssh-keygen": "openssh-client", "rsync": "rsync", "nft": "nftables"}
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    missing = [package for tool, package in tools.items() if shutil.which(tool, path=path) is None]
    return f"install {', '.join(missing)}" if missing else ""


class _Secured(Serve):
    """As an operator starts it on the head node, with TLS and tokens."""

    security = ("--cert=/root/server.crt", "--key=/root/server.key", "--token-file=/root/tokens")
    environment = ENVIRONMENT


class _RaisedCluster(Cluster):
    """Three hosts as `ray up` has set them up, with a secured server; the fourth is the operator's."""

    def __init__(self, hosts: Hosts) -> None:
        *members, self.operator = hosts.all
        super().__init__(hosts, members)
        home = self.operator.disk / "home"
        self._tls, self._token = Tls((home / "ca.pem").read_bytes()), (home / "alice.token").read_text().strip()
        self.begin(lambda address: Client(address, self._token, self._tls))

    def serve(self) -> Serve:
        """With TLS and tokens; the head is to sit on a worker."""
        return _Secured(self.members[0], "--ray-address=auto", "--set", "head.resources={worker: 0.1}")

    def join(self, host: Host) -> None:
        """Its ssh server starts, as at every boot; the rest is the autoscaler's."""
        let_in(host)

    def add(self, disk: str = "") -> Host:
        """As docs/operations.md has it: by hand, because Ray's provider of hosts does not look for others later."""
        host = self._hosts.add(disk)
        let_in(host, (self.operator.disk / "home" / ".ssh" / "id_ed25519.pub").read_text())
        join_by_hand(self.operator, self.members[0], host)
        self.members.append(host)
        return host

    def credentials(self) -> grpc.ChannelCredentials:
        """For streams."""
        token = grpc.access_token_call_credentials(self._token)
        return grpc.composite_channel_credentials(grpc.ssl_channel_credentials(self._tls.ca), token)


def ray_up(requests: Sequence[inference.GenerateRequest], times: int) -> list[Row]:
    """Three hosts, and a fourth for operator and client; each of the scenarios so often, none with 0. What is wrong is
    told as a failed request of the first row.
    """
    tally, notes, begin = Tally(), list[str](), time.monotonic()

    def note(what: str) -> None:
        notes.append(f"{what} {time.monotonic() - begin:.0f} s")
        print(notes[-1], file=sys.stderr, flush=True)

    with Hosts(4) as hosts:
        *members, operator = hosts.all
        prepare(members, operator)
        note("four hosts at")
        on(operator, _UP, 300)
        note("ray up done at")
        wait(lambda: nodes(members[0]) == len(members), "three nodes", lambda: _log(members[0]))
        note("three nodes at")
        cluster = _RaisedCluster(hosts)
        note("ready at")
        for prompt, expected in zip(PROMPTS, texts_on_one_host(operator), strict=True):
            tally.done += 1
            if (text := ask(operator, members[0], prompt)) != expected:
                tally.different += 1
                notes.append(f"{prompt!r} gives {text!r}, not {expected!r}")
        tally.failed += refused(operator, members)
        rows = _under_load(cluster, requests, times) if times else []
        notes.append(scanned(operator, members, tally))
        cluster.close()
        cluster.serves[-1].terminate()
        down = on(operator, f"cd /root/eightwinds && ray down -y {CONFIG}", 120)
        note("ray down done at")
        wait(
            lambda: not any(_ray_left(host) for host in members),
            "the workers to leave",
            lambda: f"{down}\n{_left(members)}",
        )
        note("nothing left at")
    window = [(begin, time.monotonic())]
    return [Row(NAME, 1, Tally(), tally, window, "; ".join(notes)), *rows]


def _under_load(cluster: _RaisedCluster, requests: Sequence[inference.GenerateRequest], times: int) -> list[Row]:
    streams = Streams(cluster.serves[0].address, requests, credentials=cluster.credentials())
    streams.learn()
    quiet = streams.start()
    time.sleep(_QUIET_SECONDS)
    streams.stop()
    rows = []
    for name, play in ON_RAY_UP.items():
        begin = time.monotonic()
        rows.append(play(Stage(cluster, streams, quiet), times))
        print(f"{name}: {rows[-1].cells()} ({time.monotonic() - begin:.0f} s)", file=sys.stderr, flush=True)
    return rows


def _log(head: Host) -> str:
    logs = sorted((head.disk / "tmp" / "ray").glob("session_2*/logs/monitor.*"))
    return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)


def _ray_left(host: Host) -> list[str]:
    lines = list[str]()
    for process in host.processes():
        with contextlib.suppress(psutil.Error):  # it ends just now
            lines.append(" ".join(process.cmdline()))
    return [line[:100] for line in lines if any(name in line for name in _RAY)]


def _left(cluster: list[Host]) -> str:
    return "\n".join(f"{host.name}: {_ray_left(host)}" for host in cluster)
