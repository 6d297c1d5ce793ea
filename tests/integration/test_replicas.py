"""Replicas as an operator sees them: scaled while serving, kept by the next serve, measured."""

import os
import signal
import urllib.request

import psutil
import pytest

from protos.eightwinds.v1 import cluster_pb2 as pb
from protos.eightwinds.v1 import inference_pb2
from tests.integration.conftest import StartServer
from tests.integration.server import Server, wait_for
from tests.integration.small import ACTORS
from tests.mixed import ask


def request() -> inference_pb2.GenerateRequest:
    return inference_pb2.GenerateRequest(
        prompt=inference_pb2.Prompt(text="Once upon a time"),
        sampling=inference_pb2.Sampling(temperature=0.9, seed=7),
        stopping=inference_pb2.Stopping(max_tokens=60, ignore_eos=True),
        output=inference_pb2.OutputOptions(token_ids=True),
    )


def replicas(server: Server, expert: int) -> list[tuple[int, int]]:
    """Slot and process of those that are ready."""
    with server.client() as client:
        found = client.status().experts[expert].replicas
    return [(r.replica, r.pid) for r in found if r.state == pb.REPLICA_STATE_READY]


def test_scaled_by_the_command_seen_in_the_metrics_and_adopted_by_the_next_serve(start: StartServer) -> None:
    first = start().wait_ready()
    with first.client() as client:
        wanted = ask(client, request())
        scaled = first.command("scale", "1", "3", "--address", first.address)
        assert scaled.returncode == 0, scaled.stderr
        assert "done: 1 expert with 3 ready" in scaled.stdout
        assert ask(client, request()) == wanted
        with urllib.request.urlopen(f"http://{first.ready['http']}/metrics", timeout=20) as answer:
            text = answer.read().decode()
    assert 'eightwinds_expert_replicas{expert="1",state="ready"} 3.0' in text
    busy = [line for line in text.splitlines() if line.startswith('eightwinds_expert_busy_seconds_total{expert="1"')]
    assert len(busy) == 3, f"all three have worked: {busy}"

    before = replicas(first, 1)
    assert [slot for slot, _ in before] == [0, 1, 2]
    first.process.kill()
    first.process.wait()
    second = start(state=first.state).wait_ready()
    assert replicas(second, 1) == before, "they are kept"
    with second.client() as client:
        assert ask(client, request()) == wanted
        client.scale({1: 1})
        wait_for(lambda: len(second.actors()) == ACTORS, "two replicas to end")
        assert ask(client, request()) == wanted
    assert [slot for slot, _ in replicas(second, 1)] == [0]


def test_one_that_does_not_answer_the_next_serve_is_replaced_because_two_were_asked_for(start: StartServer) -> None:
    first = start().wait_ready()
    with first.client() as client:
        wanted = ask(client, request())
        client.scale({1: 2})
    wait_for(lambda: len(replicas(first, 1)) == 2, "a second replica")
    (_, frozen), kept = replicas(first, 1)
    first.process.kill()
    first.process.wait()
    os.kill(frozen, signal.SIGSTOP)
    second = start(state=first.state).wait_ready()
    wait_for(lambda: len(replicas(second, 1)) == 2 and len(second.actors()) == ACTORS + 1, "another for the frozen one")
    assert kept in replicas(second, 1)
    assert frozen not in second.actors()
    with second.client() as client:
        assert ask(client, request()) == wanted


def test_a_node_s_memory_is_what_its_machine_says(server: Server) -> None:
    with server.client() as client:
        (node,) = client.status().nodes
    memory = psutil.virtual_memory()
    assert node.memory_total_bytes == memory.total
    assert node.memory_used_bytes == pytest.approx(memory.total - memory.available, rel=0.5)


def test_a_replica_that_finds_no_node_is_taken_back_with_the_reason(start: StartServer) -> None:
    server = start("--set", "experts.num_cpus=1", "--set", "scaling.placement_timeout_s=3").wait_ready()
    answer = server.command("scale", "0", "30", "--address", server.address)
    assert answer.returncode == 1
    assert "no node took it within 3 s (it needs: CPU 1" in answer.stderr
    with server.client() as client:
        assert ask(client, request())
