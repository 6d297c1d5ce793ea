"""Several servers on one cluster: one leads, the others stand by and take over with all that was asked for."""

import json
import signal
import time
from collections.abc import Iterator

import pytest

from cluster.client.client import Client, Request, Status
from cluster.client.messages import text_request
from cluster.client.resume import resuming
from cluster.launch.local_ray.daemon import LOOPBACK, _free_port
from cluster.settings.request_options import Options
from tests.integration.cluster import ray_cluster
from tests.integration.conftest import StartServer
from tests.integration.server import Server, wait_for

REQUEST = text_request("Once upon a time", Options(max_tokens=400, ignore_eos=True, temperature=0.0))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ray_cluster("standby", RAY_AUTH_MODE="disabled") as found:
        yield found


class Servers:
    """Starts them one after the other, all on the same ports."""

    def __init__(self, start: StartServer, address: str) -> None:
        grpc, http = f"127.0.0.1:{_free_port()}", f"127.0.0.1:{_free_port()}"
        self._start, self.grpc = start, grpc
        self._given = ["--ray-address", address, "--listen", grpc, "--http", http, "--set", "kv.memory_bytes=4194304"]

    def lead(self) -> Server:
        return self._start(*self._given, environment=LOOPBACK).wait_ready()

    def stand_by(self) -> Server:
        server = self._start(*self._given, environment=LOOPBACK)
        server.wait_stderr("standing by: ")
        return server

    def status(self) -> Status:
        with Client(self.grpc) as client:
            return client.status()

    def processes(self) -> set[int]:
        return {replica.pid for expert in self.status().experts for replica in expert.replicas}

    def text(self, request: Request) -> str:
        """Of a stream that outlives its server."""
        with Client(self.grpc) as client:
            return "".join(message.text for message in resuming(client, request, 120.0, 60.0))


@pytest.fixture
def servers(start: StartServer, address: str) -> Servers:
    return Servers(start, address)


def test_a_standby_takes_over_from_a_killed_server_with_all_that_was_asked_for(servers: Servers) -> None:
    first = servers.lead()
    with Client(servers.grpc) as client:
        client.scale({0: 2})
        client.set_policy({"cooldown": 77.0})
        wait_for(lambda: all(r.pid for e in servers.status().experts for r in e.replicas), "the second replica")
        wait_for(lambda: len(servers.processes()) == 3, "the second replica's process")
    expected, before = servers.text(REQUEST), servers.processes()
    standby = servers.stand_by()
    with Client(servers.grpc) as client:
        stream = resuming(client, REQUEST, 120.0, 60.0)
        pieces = [next(stream).text]
        first.process.kill()
        killed = time.monotonic()
        standby.wait_ready()
        print(f"ready again {time.monotonic() - killed:.2f} s after the kill")
        pieces += [message.text for message in stream]
    assert "".join(pieces) == expected
    status = servers.status()
    assert [expert.desired_replica_count for expert in status.experts] == [2, 1]
    assert status.policy.cooldown.seconds == 77
    assert servers.processes() == before, "the actors were taken over as they were"

    third = servers.stand_by()
    assert standby.stop(signal.SIGTERM) == 0
    third.wait_ready()
    assert servers.processes() == before, "a server that is asked to end leaves the actors to one that stands by"
    assert third.stop(signal.SIGTERM) == 0
    last = servers.lead()
    assert servers.processes().isdisjoint(before), "with the last server the actors ended"
    assert [e.desired_replica_count for e in servers.status().experts] == [1, 1], "and what was asked for with them"
    assert last.stop() == 0


def test_a_server_that_was_frozen_for_long_leaves_the_actors_to_its_successor(servers: Servers) -> None:
    first = servers.lead()
    before = servers.processes()
    first.process.send_signal(signal.SIGSTOP)
    other = Servers(servers._start, servers._given[1])  # on other ports, because the frozen one holds its own
    second = other.lead()
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(60) == 1
    assert "leads instead of this one" in first.stderr()
    assert other.processes() == before
    assert other.text(REQUEST)
    assert second.stop() == 0


def test_a_standby_can_be_asked_to_end(servers: Servers) -> None:
    first = servers.lead()
    standby = servers.stand_by()
    assert standby.stop(signal.SIGTERM) == 0
    said = first.command("status", "--address", servers.grpc, "--json")
    assert json.loads(said.stdout)["experts"]
    assert first.stop() == 0
