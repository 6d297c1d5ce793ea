"""`generate` and `chat`: what they print, what they send, and how they end."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.cli import generate
from cluster.client.client import Client
from cluster.client.failures import EXIT_BASE
from cluster.client.messages import text_request
from cluster.engine.served_model import ServedModel
from cluster.settings.address import bind
from cluster.settings.request_options import Options
from protos.eightwinds.v1 import inference_pb2 as pb
from tests import commands
from tests.commands import exit_code
from tests.fakes import FakeHead
from tests.serving import Serving
from tests.text_folders import V1, with_vocabulary

ServeFake = Callable[..., Serving]


def run(address: str, prompt: str = "My favourite", max_tokens: int | None = 6, **more: Any) -> int:
    given = {"temperature": 0.0, "patience": 0.0, **more}
    return exit_code(generate.generate, prompt=prompt, address=address, max_tokens=max_tokens, **given)


def test_text_is_printed_as_it_comes_and_ends_with_a_newline(
    serving: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = (
        serving.client.generate(text_request("My favourite", Options(max_tokens=6, temperature=0.0))).outputs[0].text
    )
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


@pytest.mark.parametrize(("outcome", "code", "patience"), [("unavailable", 14, 0.0), ("internal", 13, 30.0)])
def test_a_failure_in_mid_stream_keeps_what_was_printed(
    outcome: str, code: int, patience: float, serve_fake: ServeFake, capsys: pytest.CaptureFixture[str]
) -> None:
    head = FakeHead(sample=lambda new, ids: new.token_ids[-1])
    server = serve_fake(head)
    head.outcomes.extend(["", "", "", "", outcome])
    word = server.served.tokenizer.encode("the", bos=False)
    assert len(word) == 1, "take a text of one token"
    assert run(server.address, prompt="the", patience=patience) == EXIT_BASE + code
    printed = capsys.readouterr()
    assert printed.out in ("", *(" the" * n for n in range(1, 5)))
    assert printed.err.startswith("\neightwinds generate: " if printed.out else "eightwinds generate: ")


def test_an_interrupt_ends_with_the_shells_code(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Client, request: pb.GenerateRequest, timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "stream", interrupted)
    assert run(serving.address) == 130


def test_several_outputs_come_one_after_the_other(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(serving.address, n=3) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines if line.startswith("[")] == ["[0] ", "[1] ", "[2] "]


def test_a_refusal_that_says_when_is_tried_again(
    serving: Serving, serve_fake: ServeFake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    server = serve_fake(FakeHead())
    server.gateway.backend.draining = True

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        server.gateway.backend.draining = len(waits) < 2

    monkeypatch.setattr(time, "sleep", sleep)
    assert run(server.address, retries=1) == EXIT_BASE + 14, "one more try does not suffice"
    waits.clear()
    server.gateway.backend.draining = True
    assert run(server.address, retries=2) == 0
    assert waits == [5.0, 5.0]
    assert "2 tries left" in capsys.readouterr().err
    assert run(serving.address, max_tokens=0, retries=9) == EXIT_BASE + 3, "a wrong request stays wrong"
    assert len(waits) == 2


@pytest.fixture
def talker(serve_fake: ServeFake, demo: ServedModel) -> Serving:
    """A server with Mixtral's vocabulary, and so its chat template, that says the last token again and again."""
    return serve_fake(FakeHead(page_count=1024, sample=lambda new, ids: 272), with_vocabulary(demo, V1))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[pb.GenerateRequest]:
    """What the client sends."""
    requests: list[pb.GenerateRequest] = []
    stream = Client.stream

    def recorded(
        self: Client, request: pb.GenerateRequest, timeout: float | None = None
    ) -> Iterator[pb.GenerateStreamResponse]:
        requests.append(request)
        return stream(self, request, timeout)

    monkeypatch.setattr(Client, "stream", recorded)
    return requests


def talk(talker: Serving, monkeypatch: pytest.MonkeyPatch, *lines: str, system: str = "", max_tokens: int = 4) -> int:
    given = iter(lines)

    def read(prompt: str) -> str:
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    return exit_code(generate.chat, address=talker.address, system=system, max_tokens=max_tokens, temperature=0.0)


def turns(request: pb.GenerateRequest) -> list[tuple[int, str]]:
    return [(m.role, m.content) for m in request.prompt.chat.messages]


def test_a_conversation_is_sent_whole(
    talker: Serving,
    sent: list[pb.GenerateRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert talk(talker, monkeypatch, "Hello", "", "And now?", "/reset", "Again", "/exit", "never") == 0
    answers = capsys.readouterr().out.splitlines()
    assert turns(sent[0]) == [(pb.ROLE_USER, "Hello")]
    assert turns(sent[1]) == [
        (pb.ROLE_USER, "Hello"),
        (pb.ROLE_ASSISTANT, answers[0].strip()),
        (pb.ROLE_USER, "And now?"),
    ]
    assert turns(sent[2]) == [(pb.ROLE_USER, "Again")]
    assert len(sent) == 3


def test_what_the_model_is_told_first_survives_a_reset(
    talker: Serving, sent: list[pb.GenerateRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert talk(talker, monkeypatch, "Hello", "/reset", "Again", system="Be brief.") == 0
    assert [turns(request)[0] for request in sent] == [(pb.ROLE_SYSTEM, "Be brief.")] * 2


def test_a_model_without_a_chat_template_is_refused_before_anything_is_typed(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert talk(serving, monkeypatch, "Hello") == 2
    assert "'demo' has no chat template" in capsys.readouterr().err


def test_an_unknown_command_is_not_sent(
    talker: Serving,
    sent: list[pb.GenerateRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert talk(talker, monkeypatch, "/help") == 0
    assert sent == [] and "/reset" in capsys.readouterr().err


def test_a_question_that_fails_is_not_remembered(
    talker: Serving,
    sent: list[pb.GenerateRequest],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert talk(talker, monkeypatch, "long " * 5000) == EXIT_BASE + 3
    assert "eightwinds chat: INVALID_ARGUMENT" in capsys.readouterr().err
    assert talk(talker, monkeypatch, "long " * 5000, "\udcff", "Hello") == 0
    assert turns(sent[-1]) == [(pb.ROLE_USER, "Hello")]


class PressedOnce:
    """Standard output at which Ctrl-C is pressed when the first text has come."""

    def __init__(self) -> None:
        self.pressed = False

    def write(self, text: str) -> int:
        if text.strip() and not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt
        return len(text)

    def flush(self) -> None:
        pass


def test_an_interrupt_stops_the_answer_and_keeps_what_was_said(
    talker: Serving, sent: list[pb.GenerateRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", PressedOnce())
    assert talk(talker, monkeypatch, "first", "second", max_tokens=40) == 0
    monkeypatch.undo()
    assert [role for role, _ in turns(sent[1])] == [pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_USER]
    talker.idle()


def test_generate_prints_the_continuation(serving: Serving) -> None:
    text = "My favourite condiment is"
    expected = (
        serving.client.generate(text_request(text, Options(max_tokens=8, temperature=0.0))).outputs[0].text + "\n"
    )
    options = ("--address", serving.address, "--max-tokens", "8", "--temperature", "0")
    result = commands.run("generate", text, *options)
    assert (result.exit_code, result.stdout) == (0, expected)
    assert commands.run("generate", "-", *options, stdin=text).stdout == expected, "- reads standard input"


def test_a_seed_fixes_the_continuation(serving: Serving) -> None:
    seeded = ("generate", "My favourite", "--address", serving.address, "--max-tokens", "5", "--seed", "3")
    assert commands.run(*seeded).stdout == commands.run(*seeded).stdout != ""
    assert commands.run(*seeded, "--json").stdout.startswith('{"request_id": ')


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
        (["--json-schema", "@/nowhere/schema"], "/nowhere/schema cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_exits_with_2(arguments: list[str], says: str) -> None:
    result = commands.run("generate", "Hi", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("eightwinds: ") and says in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--max-tokens", "0"], 13), (["--temperature", "3"], 13), (["--seed", "1"], 0)]
)
def test_the_exit_code_of_generate_is_ten_plus_the_status(arguments: list[str], code: int, serving: Serving) -> None:
    result = commands.run(
        "generate", "Hi", "--address", serving.address, *(["--max-tokens", "2"] if not code else []), *arguments
    )
    assert result.exit_code == code
    assert bool(result.stderr) == bool(code)
