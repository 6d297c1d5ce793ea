"""The client, and what `eightwinds generate` prints and returns."""

import json
from collections.abc import Callable

import grpc
import pytest
from grpc import StatusCode

from cluster.address import bind
from cluster.client import EXIT_BASE, Client, explain, print_generation, text_request
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.fakes import FakeHead
from tests.serving import Serving

ServeFake = Callable[..., Serving]


def run(
    address: str, prompt: str = "My favourite", max_tokens: int | None = 6, as_json: bool = False, **more: int
) -> int:
    return print_generation(address, prompt, max_tokens, 0.0, more.get("seed"), [], as_json)


def test_a_text_request_leaves_to_the_server_what_is_not_given() -> None:
    bare = text_request("Hi")
    assert bare.prompt.text == "Hi"
    assert not bare.sampling.ListFields() and not bare.stopping.ListFields()
    full = text_request("Hi", 0, 0.0, 0, ["a", "b"])
    assert full.stopping.HasField("max_tokens") and full.sampling.HasField("temperature")
    assert full.sampling.HasField("seed") and list(full.stopping.stop) == ["a", "b"]


def test_the_client_generates_streams_and_lists(serving: Serving) -> None:
    request = text_request("My favourite condiment is", 5, 0.0)
    with Client(serving.address) as client:
        text = client.generate(request).outputs[0].text
        assert "".join(message.text for message in client.stream(request)) == text
        assert [model.id for model in client.models()] == ["demo"]


def test_a_timeout_is_the_calls_deadline(serve_fake: ServeFake) -> None:
    head = FakeHead()
    server = serve_fake(head)
    head.hold()
    calls = (
        lambda: server.client.generate(text_request("a", 3), timeout=0.05),
        lambda: list(server.client.stream(text_request("a", 3), timeout=0.05)),
    )
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED


def test_a_failed_call_in_one_sentence(serving: Serving, serve_fake: ServeFake) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        serving.client.generate(pb.GenerateRequest(n=9, priority=500))
    said = explain(caught.value)
    assert said.startswith("INVALID_ARGUMENT: prompt: must be")
    assert "n: must be 1 to 8; priority: must be -100 to 100" in said
    stopped = serve_fake(FakeHead())
    stopped.engine.stop()
    with pytest.raises(grpc.RpcError) as caught:
        stopped.client.generate(text_request("a"))
    assert explain(caught.value).endswith("; try again in 5 s")


def test_text_is_printed_as_it_comes_and_ends_with_a_newline(
    serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = serving.client.generate(text_request("My favourite", 6, 0.0)).outputs[0].text
    assert run(serving.address) == 0
    assert capsys.readouterr() == (expected + "\n", "")


def test_json_is_the_whole_answer_on_one_line(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving.address, as_json=True, seed=5) == 0
    line, _, rest = capsys.readouterr().out.partition("\n")
    answer = json.loads(line)
    assert rest == ""
    assert (answer["model"], answer["seed"], answer["usage"]["completion_tokens"]) == ("demo", "5", 6)
    assert answer["outputs"][0]["finish"] == {"reason": "FINISH_REASON_LENGTH"}


@pytest.mark.parametrize("as_json", [False, True])
def test_the_exit_code_is_ten_plus_the_status(
    as_json: bool, serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(serving.address, max_tokens=0, as_json=as_json) == EXIT_BASE + 3 == 13
    printed = capsys.readouterr()
    assert printed.out.strip() == ""
    assert "eightwinds generate: INVALID_ARGUMENT: stopping.max_tokens: must be at least 1" in printed.err
    assert serving.address in printed.err


def test_what_no_request_can_hold_exits_with_2(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving.address, max_tokens=2**31) == 2
    assert run(serving.address, seed=2**63) == 2
    assert run(serving.address, prompt="\udcff") == 2
    assert capsys.readouterr().err.count("eightwinds generate: ") == 3


def test_a_server_that_is_not_there_is_unavailable(capsys: pytest.CaptureFixture[str]) -> None:
    with bind("127.0.0.1:0") as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert run(address) == EXIT_BASE + 14
    assert "UNAVAILABLE: failed to connect to all addresses" in capsys.readouterr().err


@pytest.mark.parametrize(("outcome", "code"), [("unavailable", 14), ("internal", 13)])
def test_a_failure_in_mid_stream_keeps_what_was_printed(
    outcome: str, code: int, serve_fake: ServeFake, capsys: pytest.CaptureFixture[str]
) -> None:
    head = FakeHead(draw=lambda new, ids: new.token_ids[-1])
    server = serve_fake(head)
    head.outcomes.extend(["", "", "", "", outcome])
    word = server.served.tokenizer.encode("the", bos=False)
    assert len(word) == 1, "take a text of one token"
    assert run(server.address, prompt="the") == EXIT_BASE + code
    printed = capsys.readouterr()
    assert printed.out in ("", *(" the" * n for n in range(1, 5)))
    assert printed.err.startswith("\neightwinds generate: ")


def test_an_interrupt_ends_with_the_shells_code(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Client, request: pb.GenerateRequest, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "stream", interrupted)
    assert run(serving.address) == 130
