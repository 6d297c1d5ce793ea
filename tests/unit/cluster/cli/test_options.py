"""The options of a request at `generate` and `chat`: which there are, and that each reaches the request."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cluster.cli import generate
from cluster.cli.app import app
from cluster.client import resume
from cluster.client.client import Client
from cluster.client.messages import chat_request, text_request
from cluster.settings.request_options import REQUEST_OPTIONS, Options
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.commands import run

SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 7,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.2,
    "frequency_penalty": -0.3,
    "seed": 3,
    "max_tokens": 5,
}
Asked = list[tuple[pb.GenerateRequest, float | None, float | None]]  # request, timeout, patience
ONLY_GENERATE = {"min_tokens", "ignore_eos", "n", "logprobs", "json_schema", "regex", "priority"}


def as_options(values: dict[str, float]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def helps(command: str) -> dict[str, str]:
    """The help of each option by the option."""
    group: Any = typer.main.get_command(app)
    return {
        option: p.help for p in group.commands[command].params if p.param_type_name == "option" for option in p.opts
    }


def test_generate_offers_each_option_of_a_request_and_chat_all_but_some() -> None:
    offered = {f"--{name.replace('_', '-')}": option.help for name, option in REQUEST_OPTIONS.items()}
    assert offered.items() <= helps("generate").items()
    left_out = {f"--{name.replace('_', '-')}" for name in ONLY_GENERATE}
    assert offered.keys() & helps("chat").keys() == offered.keys() - left_out


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The calls that a command makes."""
    calls: Asked = []

    def whole(client: Client, request: pb.GenerateRequest, timeout: float | None = None) -> pb.GenerateResponse:
        calls.append((request, timeout, None))
        return pb.GenerateResponse()

    def streamed(
        client: Client, request: pb.GenerateRequest, timeout: float | None, patience: float
    ) -> Iterator[pb.GenerateStreamResponse]:
        calls.append((request, timeout, patience))
        return iter([pb.GenerateStreamResponse(text="Yes")])

    monkeypatch.setattr(Client, "generate", whole)
    monkeypatch.setattr(Client, "models", lambda client: [pb.Model(chat=True)])
    monkeypatch.setattr(resume, "resuming", streamed)
    return calls


def test_every_option_of_generate_reaches_the_request(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}', encoding="utf-8")
    more = ["--stop", "a", "--stop", "b", "--ignore-eos", "--n", "2", "--logprobs", "1", "--priority", "-4"]
    more += ["--min-tokens", "1", "--json-schema", f"@{tmp_path / 'schema.json'}", "--timeout", "9", "--json"]
    assert run("generate", "Hi", *as_options(SAMPLING), *more).exit_code == 0
    wanted = Options(
        **SAMPLING,  # type: ignore[arg-type]  # by field name
        stop=["a", "b"],
        ignore_eos=True,
        n=2,
        logprobs=1,
        priority=-4,
        min_tokens=1,
        json_schema='{"type": "object"}',
    )
    assert asked == [(text_request("Hi", wanted), 9.0, None)]


def test_a_stream_takes_the_timeout_and_the_patience(asked: Asked) -> None:
    assert run("generate", "Hi", "--regex", "x", "--timeout", "9", "--patience", "7").stdout == "Yes\n"
    assert run("generate", "Hi").exit_code == 0
    assert asked == [(text_request("Hi", Options(regex="x")), 9.0, 7.0), (text_request("Hi"), None, 30.0)]


def test_every_option_of_chat_reaches_the_request(asked: Asked) -> None:
    talked = run("chat", *as_options(SAMPLING), "--stop", "a", "--system", "Be brief.", stdin="Hi\n")
    assert (talked.exit_code, talked.stdout) == (0, "Yes\n")
    wanted = Options(**SAMPLING, stop=["a"])  # type: ignore[arg-type]  # by field name
    assert asked == [(chat_request([("system", "Be brief."), ("user", "Hi")], wanted), None, 30.0)]


def test_retries_are_those_of_every_call(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    retries: list[int] = []

    def patiently(call: Callable[[], Any], client: Client, more: int) -> Any:
        retries.append(more)
        return call()

    monkeypatch.setattr(generate, "_patiently", patiently)
    assert run("generate", "Hi", "--retries", "3").exit_code == run("generate", "Hi", "--json").exit_code == 0
    assert run("chat", "--retries", "2", stdin="Hi\n").exit_code == 0
    assert retries == [3, 0, 2, 2]
