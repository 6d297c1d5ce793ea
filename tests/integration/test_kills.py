"""kill -9 of an expert's only copy or of the head, and a frozen head: streams stall, and go on as they would have."""

import http.client
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from cluster.client.messages import text_request
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.integration.conftest import StartServer
from tests.integration.server import Server

PROMPTS = ("Once upon a time", "My favourite condiment is", "What is 37 + 48?")


def request(prompt: str, seed: int | None = None) -> pb.GenerateRequest:
    wanted = text_request(prompt, Options(max_tokens=120, temperature=0.0 if seed is None else 0.8, seed=seed))
    wanted.stopping.ignore_eos = True
    return wanted


def hit(server: Server, actor: str, signum: signal.Signals) -> None:
    """Send a signal to such an actor under six streams: no token is lost or another, and the process is replaced."""
    requests = [request(prompt, seed) for prompt in PROMPTS for seed in (None, 7)]
    with server.client() as client:
        wanted = [client.generate(r, timeout=60).outputs[0].text for r in requests]
        streams = [client.stream(r, timeout=180) for r in requests]
        texts = [next(stream).text for stream in streams]
        victim = next(p for p in server.actors() if " ".join(psutil.Process(p).cmdline()).startswith(actor))
        os.kill(victim, signum)
        texts = [text + "".join(m.text for m in stream) for text, stream in zip(texts, streams, strict=True)]
    assert texts == wanted
    assert victim not in server.actors() and len(server.actors()) == 9


@pytest.mark.parametrize("actor", ["ray::ExpertActor", "ray::HeadActor"])
def test_a_kill_under_streams_loses_no_request_and_no_token(actor: str, server: Server) -> None:
    hit(server, actor, signal.SIGKILL)


@pytest.mark.parametrize("actor", ["ray::ExpertActor", "ray::HeadActor"])
def test_a_kill_is_not_seen_over_http_either(actor: str, server: Server) -> None:
    """F30 of docs/clients.md: no error event, and the texts are those of the other port."""
    with server.client() as client:
        wanted = [client.generate(request(prompt), timeout=60).outputs[0].text for prompt in PROMPTS]
    begun = threading.Barrier(len(PROMPTS) + 1)
    with ThreadPoolExecutor() as pool:
        streams = [pool.submit(text_over_http, server.ready["http"], prompt, begun) for prompt in PROMPTS]
        begun.wait(60)
        victim = next(p for p in server.actors() if " ".join(psutil.Process(p).cmdline()).startswith(actor))
        os.kill(victim, signal.SIGKILL)
        assert [stream.result(180) for stream in streams] == wanted


def text_over_http(address: str, prompt: str, begun: threading.Barrier) -> str:
    connection, text = http.client.HTTPConnection(address, timeout=180), ""
    body = {"prompt": prompt, "max_tokens": 120, "temperature": 0, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body))
    with connection.getresponse() as response:
        for line in response:
            if line.startswith(b"data: {"):
                if not text:
                    begun.wait(60)
                text += json.loads(line[6:])["choices"][0]["text"]
    connection.close()
    return text


def test_a_frozen_head_is_ended_and_begins_anew(start: StartServer) -> None:
    hit(start("--model", "demo", "--set", "head.hang_s=3").wait_ready(), "ray::HeadActor", signal.SIGSTOP)
