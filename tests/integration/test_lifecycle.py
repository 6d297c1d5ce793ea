"""Starting, stopping and being killed: nothing is lost that should stay, nothing stays that should not."""

import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from cluster.client.failures import CallFailed, failing_plainly
from cluster.client.messages import text_request
from cluster.client.resume import resuming
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.integration.conftest import StartServer
from tests.integration.server import Server, wait_for


def long_request(tokens: int = 200) -> pb.GenerateRequest:
    request = text_request("Once upon a time", Options(max_tokens=tokens, temperature=0.0))
    request.stopping.ignore_eos = True
    return request


def test_a_second_serve_on_the_same_port_says_so_and_starts_nothing(
    server: Server, tmp_path: Path, start: StartServer
) -> None:
    second = start("--listen", server.address, state=tmp_path)
    assert second.process.wait(30) == 1
    assert f"cannot listen on {server.address}: Address already in use" in second.stderr()
    assert second.leftovers() == []


def test_ctrl_c_during_the_start_leaves_nothing_behind(start: StartServer) -> None:
    starting = start()
    starting.wait_stderr("loading weights")
    assert starting.stop(signal.SIGINT) == 0
    assert starting.leftovers() == []


def test_a_checkpoint_that_cannot_be_served_is_refused_before_anything_starts(
    tmp_path: Path, start: StartServer
) -> None:
    refused = start("--model", str(tmp_path / "nothing"))
    assert refused.process.wait(30) == 1
    assert "is no folder" in refused.stderr()
    assert refused.leftovers() == []


def test_a_wrong_number_of_experts_is_refused_with_the_key_to_set(start: StartServer) -> None:
    refused = start("--model", "demo", "--set", "experts.count=4")
    assert refused.process.wait(30) == 1
    assert "set experts.count=8" in refused.stderr()


def test_http_says_healthy_and_ready(server: Server) -> None:
    for path in ("healthz", "readyz"):
        with urllib.request.urlopen(f"http://{server.ready['http']}/{path}", timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://{server.ready['http']}/nothing", timeout=10)


def test_a_killed_serve_is_taken_over_with_its_actors_and_a_stop_lets_the_stream_finish(start: StartServer) -> None:
    first = start().wait_ready()
    with first.client() as client:
        wanted = client.generate(long_request(), timeout=60).outputs[0].text
    before = first.actors()
    first.process.kill()
    first.process.wait()
    assert before == first.actors(), "the actors outlive a killed serve"

    started = time.monotonic()
    second = start(state=first.state).wait_ready()
    taken = time.monotonic() - started
    assert before == second.actors(), f"the actors were adopted, not replaced (ready after {taken:.1f} s)"
    with second.client() as client:
        stream = client.stream(long_request(), timeout=60)
        text = next(stream).text
        second.process.send_signal(signal.SIGTERM)
        text += "".join(message.text for message in stream)
    assert text == wanted, "the stream that ran when SIGTERM came was finished"
    assert second.process.wait(60) == 0
    assert second.leftovers() == []


@pytest.mark.parametrize("with_expert", [False, True], ids=["alone", "with an expert"])
def test_a_stream_of_our_client_goes_on_when_a_killed_serve_is_replaced(with_expert: bool, start: StartServer) -> None:
    """The head's step may wait for an expert whose successor only the next serve knows."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    first = start("--listen", address, "--set", "experts.grace_s=600").wait_ready()
    request = long_request(300)
    request.sampling.CopyFrom(pb.Sampling(temperature=0.9))
    with first.client() as client:
        (expert,) = [r.pid for r in client.status().experts[1].replicas]
        stream = resuming(client, request, timeout=120, patience=60)
        opening = next(stream)
        texts = [opening.text]
        if with_expert:
            psutil.Process(expert).kill()
            time.sleep(0.05)  # the head meets it, and serve has not seen its successor yet
        first.process.kill()
        first.process.wait()
        second = start("--listen", address, "--set", "experts.grace_s=600", state=first.state)
        texts += [message.text for message in stream]
        request.sampling.seed = opening.seed
        assert "".join(texts) == client.generate(request, timeout=60).outputs[0].text
    assert second.stop() == 0


def test_down_removes_what_a_killed_serve_left_behind_and_its_ports_are_free(start: StartServer) -> None:
    killed = start("--set", "experts.grace_s=5").wait_ready()
    host, port = killed.address.split(":")
    killed.process.kill()
    killed.process.wait()
    assert killed.leftovers()
    answer = killed.command("down")
    assert answer.returncode == 0 and "removed a local Ray" in answer.stdout
    wait_for(lambda: killed.leftovers() == [], "nothing left")
    with socket.socket() as probe:
        probe.bind((host, int(port)))


def test_a_closed_terminal_drains_as_sigterm_does(start: StartServer) -> None:
    closing = start().wait_ready()
    with closing.client() as client:
        stream = client.stream(long_request(), timeout=60)
        text = next(stream).text
        closing.process.send_signal(signal.SIGHUP)
        text += "".join(message.text for message in stream)
    assert len(text) > 200
    assert closing.process.wait(60) == 0
    assert closing.leftovers() == []


def test_a_second_ctrl_c_does_not_wait_for_requests(start: StartServer) -> None:
    impatient = start("--set", "gateway.grace_s=300").wait_ready()
    with impatient.client() as client:
        stream = client.stream(long_request(3000), timeout=600)
        next(stream)
        impatient.process.send_signal(signal.SIGINT)
        impatient.wait_stderr("draining")
        impatient.process.send_signal(signal.SIGINT)
        with pytest.raises(CallFailed, match="shutting down"), failing_plainly(client):
            list(stream)
    assert impatient.process.wait(30) == 0
    assert impatient.leftovers() == []
