"""The OpenAI-compatible door: paths, models, callers, failures, and clients that go. F1 is a row of docs/clients.md."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.engine.served_model import ServedModel
from cluster.settings.config import load_config
from cluster.settings.sections import LimitsSection
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from protos.eightwinds.v1 import inference_pb2 as pb
from protos.eightwinds.v1 import inference_pb2_grpc as pb_grpc
from tests.engines import engine_bounds
from tests.fakes import PATIENCE, FakeHead
from tests.openai_door import CHAT, COMPLETIONS, HELLO, ask, chat
from tests.serving import Serving

ServeFake = Callable[..., Serving]


@pytest.mark.parametrize("path", ["/v1/version", "/v1/models", "/tokenizer_info", "/health", "/ping", "/"])
def test_paths_answer_with_and_without_a_slash_at_the_end(path: str, serving: Serving) -> None:
    """F1, F26."""
    assert ask(serving, path).status == 200
    assert path in ("/health", "/ping", "/") or ask(serving, f"{path}/").status == 200
    assert ask(serving, "/", method="HEAD").status == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", CHAT, 405)])
def test_what_there_is_not_is_told_in_openais_words(method: str, path: str, status: int, serving: Serving) -> None:
    """F1, F4."""
    answered = ask(serving, path, method=method)
    assert answered.status == status and path in answered.error["message"]


def test_a_model_is_listed_with_its_length(serving: Serving) -> None:
    """F2."""
    (model,) = ask(serving, "/v1/models").json["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("demo", "model", "eightwinds")
    assert model["max_model_len"] == serving.client.models()[0].context_length
    assert ask(serving, "/v1/models/demo").json == model
    assert ask(serving, "/v1/models/other").error["code"] == "model_not_found"


def test_an_answer_bears_the_name_that_the_client_used(chatting: Serving, instruct: ServedModel) -> None:
    """F3."""
    assert chat(chatting).json["model"] == chat(chatting, model=instruct.id).json["model"] == instruct.id
    answered = chat(chatting, model="gpt-4")
    assert (answered.status, answered.error["code"], answered.error["param"]) == (404, "model_not_found", "model")


def test_a_model_has_further_names(instruct: ServedModel, serve_fake: ServeFake) -> None:
    """F3."""
    server = serve_fake(FakeHead(), replace(instruct, aliases=("gpt-4", "org/other")))
    listed = ask(server, "/v1/models").json["data"]
    assert [model["id"] for model in listed] == [instruct.id, "gpt-4", "org/other"]
    assert {model["root"] for model in listed} == {instruct.id}
    assert ask(server, "/v1/models/org/other/").json == listed[2]
    assert chat(server, model="gpt-4").json["model"] == "gpt-4"
    assert chat(server, model="gpt-4", stream=True).events[0]["model"] == "gpt-4"
    assert ask(server, "/tokenize", {"prompt": "a", "model": "gpt-4"}).status == 200
    assert chat(server, model="gpt-5").status == 404
    request = pb.GenerateRequest(model="org/other", prompt=pb.Prompt(text="a"))
    request.stopping.max_tokens = 1
    assert pb_grpc.InferenceServiceStub(server.channel).Generate(request).model == instruct.id


def test_a_full_queue_says_when_to_come_again(instruct: ServedModel, serve_fake: ServeFake) -> None:
    """F6, F26."""
    head = FakeHead()
    server = serve_fake(head, instruct, max_running=1, max_queued=1)
    head.hold()
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE)
    connection.request("POST", CHAT, json.dumps({"messages": HELLO, "n": 2, "max_tokens": 2}))
    head.wait_for_plan()
    assert ask(server, "/load").json == {"server_load": 2}, "one runs, one waits"
    answered = chat(server)
    assert (answered.status, answered.error["code"]) == (429, "queue_full")
    assert 1 <= int(answered.headers["retry-after"]) <= 120
    assert answered.headers["retry-after-ms"] == f"{answered.headers['retry-after']}000"
    head.let_go()
    assert connection.getresponse().status == 200
    connection.close()


def test_a_full_queue_takes_all_prompts_of_a_request_or_none(instruct: ServedModel, serve_fake: ServeFake) -> None:
    """F6, F15."""
    head = FakeHead()
    server = serve_fake(head, instruct, max_running=1, max_queued=2)
    head.hold()
    six = {"prompt": ["a"] * 6, "max_tokens": 2, "ignore_eos": True}
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE)
    connection.request("POST", COMPLETIONS, json.dumps(six))
    head.wait_for_plan()
    assert ask(server, COMPLETIONS, six).status == 429
    assert server.engine.counters().waiting == 5, "all of the first, none of the second"
    head.let_go()
    assert len(json.loads(connection.getresponse().read())["choices"]) == 6
    connection.close()


def test_before_the_model_is_loaded_health_and_requests_say_so(instruct: ServedModel) -> None:
    """F6."""
    server = Serving(instruct)
    try:
        assert ask(server, "/health").status == 503
        answered = chat(server)
        assert (answered.status, answered.headers["retry-after"]) == (503, "2")
    finally:
        server.close()


def test_tokens_are_asked_for_as_on_the_other_port(instruct: ServedModel, tmp_path: Path) -> None:
    """F6."""
    tokens = {}
    for name, scope in (("alice", Scope.INFERENCE), ("oscar", Scope.CLUSTER)):
        tokens[name], line = new_token(name, [scope])
        append(tmp_path / "tokens", line)
    server = Serving(instruct, tokens=TokenFile(tmp_path / "tokens")).ready(FakeHead(), engine_bounds())

    def status(token: str) -> int:
        return ask(server, "/v1/models", headers={"Authorization": f"Bearer {token}"}).status

    try:
        assert ask(server, "/v1/models").status == 401
        assert [status(token) for token in ("nobody's", tokens["oscar"], tokens["alice"])] == [401, 403, 200]
        assert ask(server, "/health").status == 200, "probes have none"
    finally:
        server.close()


def test_probes_are_answered_while_all_others_wait(instruct: ServedModel) -> None:
    """F6, F26: with every connection that requests may have taken, and as many more refused."""
    head = FakeHead()
    server = Serving(instruct, limits=LimitsSection(http_connections=16)).ready(head, engine_bounds(max_queued=64))
    head.hold()
    connections = [http.client.HTTPConnection(server.http, timeout=PATIENCE) for _ in range(30)]
    body = json.dumps({"messages": HELLO, "max_tokens": 2, "ignore_eos": True, "stream": True})
    try:
        for i, connection in enumerate(connections):  # each refused one takes the place of the one before it
            connection.request("POST", CHAT, body)
            assert connection.getresponse().status == (200 if i < 15 else 429)
        assert {ask(server, path).status for path in ("/health", "/healthz", "/ping") * 3} == {200}
        head.let_go()
    finally:
        for connection in connections:
            connection.close()
        server.close()


@pytest.mark.parametrize("more", ["", "G"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_ends_its_request(
    stream: bool, more: str, instruct: ServedModel, serve_fake: ServeFake
) -> None:
    """F11, also behind a part of its next request."""
    head = FakeHead()
    server = serve_fake(head, instruct)
    head.hold()
    host, _, port = server.http.rpartition(":")
    raw = json.dumps({"messages": HELLO, "max_tokens": 200, "ignore_eos": True, "stream": stream})
    with socket.create_connection((host, int(port))) as connection:
        lines = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(raw)}\r\n\r\n{raw}"
        connection.sendall(lines.encode())
        head.wait_for_plan()
        connection.sendall(more.encode())
    assert server.run(server.generations.drained(PATIENCE / 2)), "nobody waits for it any more"
    head.let_go()
    server.idle()
    assert len(head.plans) <= 3, "the step under way, and the one that was planned meanwhile"


def test_half_a_request_behind_a_whole_one_is_waited_for_no_longer_than_any(instruct: ServedModel) -> None:
    server = Serving(instruct, limits=LimitsSection(http_head_s=0.3))
    try:
        host, _, port = server.http.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            half = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
            connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n{half}".encode())
            told = b""
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(1 << 16):
                    told += part
        assert b"200 OK" in told and told.count(b"HTTP/1.1") == 1
    finally:
        server.close()


def test_a_client_that_goes_before_its_body_has_come_is_no_failure_of_ours(
    chatting: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = chatting.http.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{{".encode())
    assert chat(chatting).status == 200
    assert not [record for record in caplog.records if record.exc_info]


def test_the_requests_own_id_is_echoed(chatting: Serving) -> None:
    """F12."""
    answered = ask(chatting, CHAT, {"messages": HELLO, "max_tokens": 1}, headers={"x-request-id": "mine-7"})
    assert answered.headers["x-request-id"] == "mine-7" and answered.json["id"] == "chatcmpl-mine-7"
    assert answered.headers["x-eightwinds-retries"] == "0"


def test_texts_and_tokens_turn_into_each_other(serving: Serving) -> None:
    """F18."""
    whole = ask(serving, "/v1/tokenize", {"prompt": "My favourite", "return_token_strs": True}).json
    bare = ask(serving, "/tokenize", {"prompt": "My favourite", "add_special_tokens": False}).json
    assert whole["tokens"][1:] == bare["tokens"] and whole["count"] == len(whole["token_strs"])
    assert ask(serving, "/detokenize", {"tokens": bare["tokens"]}).json["prompt"] == "My favourite"
    assert ask(serving, "/tokenizer_info").json["eos_token"] == "</s>"


def test_the_name_of_a_control_token_is_that_token(chatting: Serving) -> None:
    """F18: lm-eval learns so what begins and ends a text."""

    def ids(text: str, special: bool) -> list[int]:
        return list(ask(chatting, "/tokenize", {"prompt": text, "add_special_tokens": special}).json["tokens"])

    assert (ids("<s>", False), ids("</s>", False)) == ([1], [2])
    assert ids("</s>", True) == [1, 2]
    assert ids("the end </s>", False)[-1] == 2, "within a text, too (F17)"


def test_pages_of_named_origins_may_ask(instruct: ServedModel) -> None:
    """F25."""
    config = load_config(None, {}, ["gateway.cors_origins=https://a.example, https://b.example"])
    server = Serving(instruct, config=config)

    def preflight(server: Serving, origin: str) -> http.client.HTTPMessage:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization,content-type,x-stainless-os"
        return ask(server, CHAT, method="OPTIONS", headers=asked).headers

    try:
        allowed = preflight(server, "https://b.example")
        assert allowed["access-control-allow-origin"] == "https://b.example"
        assert "x-stainless-os" in allowed["access-control-allow-headers"]
        assert preflight(server, "https://c.example")["access-control-allow-origin"] is None
    finally:
        server.close()


def test_no_page_may_ask_unless_it_is_named(serving: Serving) -> None:
    """F25."""
    answered = ask(serving, "/v1/models", headers={"Origin": "https://a.example"})
    assert answered.headers["access-control-allow-origin"] is None
