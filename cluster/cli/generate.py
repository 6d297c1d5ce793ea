"""`eightwinds generate` and `chat`."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cluster.cli.options import Retries, calls_server
from cluster.cli.terminal import WRONG, refused, say
from cluster.settings.request_options import Options

if TYPE_CHECKING:
    from cluster.client.client import Client, Request

T = TypeVar("T")

_PATIENCE_SECONDS = 30.0
_CHAT_HELP = "/reset forgets the conversation, /exit (or the end of input) leaves, Ctrl-C stops an answer"


@calls_server()
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    *,
    client: "Client",
    options: Options,
    timeout: Annotated[float | None, typer.Option(min=0.0, help="Deadline in seconds.")] = None,
    retries: Retries = 0,
    patience: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for a server that went away.")
    ] = _PATIENCE_SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as one JSON object.")] = False,
) -> None:
    """Stream the continuation of a prompt. The exit code is 0, or 10 plus the gRPC status code."""
    from cluster.client.messages import text_request, to_json

    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt  # the newline that echo adds
    options = replace(options, json_schema=_argument_or_file(options.json_schema))
    try:
        request = text_request(text, options)
    except ValueError as error:  # a number over the field's bits, or text that is no Unicode
        raise refused(error, "generate") from None
    if as_json or (options.n or 1) > 1:  # several outputs come whole, one after the other
        answer = _patiently(lambda: client.generate(request, timeout), client, retries)
        print(to_json(answer) if as_json else "\n".join(f"[{o.index}] {o.text}" for o in answer.outputs))
    else:
        _show(_texts(client, request, timeout, retries, patience), [])


@calls_server(without=("min_tokens", "ignore_eos", "n", "logprobs", "json_schema", "regex", "priority"))
def chat(
    *,
    client: "Client",
    system: Annotated[str, typer.Option(help="What the model is told before the conversation.")] = "",
    options: Options,
    retries: Retries = 0,
) -> None:
    """Talk to the model: each line is a turn; /reset forgets, /exit leaves."""
    models = _patiently(client.models, client, retries)
    if not any(model.chat for model in models):
        raise refused(f"{models[0].id!r} has no chat template; use `eightwinds generate`", "chat")
    raise typer.Exit(_converse(client, options, system, retries))


def _argument_or_file(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refused(f"{text[1:]} cannot be read: {error}") from None


def _converse(client: "Client", options: Options, system: str, retries: int) -> int:
    """Each line read is a turn; an answer that fails takes its question with it. Returns 0, or the exit code of the
    last answer if it failed: what a script reads from a pipe.
    """
    from cluster.client.failures import CallFailed
    from cluster.client.messages import chat_request

    opening = [("system", system)] if system else []
    messages, code = list(opening), 0
    if sys.stdin.isatty():
        print(_CHAT_HELP, file=sys.stderr)
    for line in _lines():
        match line.strip():
            case "":
                continue
            case "/exit" | "/quit":
                return code
            case "/reset":
                messages = list(opening)
                continue
            case command if command.startswith("/") and " " not in command:
                print(_CHAT_HELP, file=sys.stderr)
                continue
        turns = [*messages, ("user", line)]
        answer: list[str] = []
        try:
            request = chat_request(turns, options)
            _show(_texts(client, request, None, retries, _PATIENCE_SECONDS), answer)
            messages, code = [*turns, ("assistant", "".join(answer).strip())], 0
        except ValueError as error:
            say(error, "chat")
            code = WRONG
        except CallFailed as error:
            say(error.text, "chat")
            code = error.exit_code
        except KeyboardInterrupt:  # keep what was said: the next turn may ask to go on
            print()
            messages = [*turns, ("assistant", "".join(answer).strip())] if answer else messages
    return code


def _lines() -> Iterator[str]:
    """Lines of standard input until it ends; at a terminal with a prompt and its line editing."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        except KeyboardInterrupt:
            print()
            return


def _show(texts: Iterator[str], answer: list[str]) -> None:
    """Print texts as they come, and add them to `answer`, which keeps what had come before a failure or Ctrl-C."""
    from cluster.client.failures import CallFailed

    try:
        for text in texts:
            answer.append(text)
            print(text, end="", flush=True)
    except CallFailed:
        if any(answer):
            print(file=sys.stderr)  # the failure is told on a line of its own
        raise
    print()


def _texts(client: "Client", request: "Request", timeout: float | None, retries: int, patience: float) -> Iterator[str]:
    """The texts of a stream. A stream that fails before its first text is opened again up to `retries` times; one that
    breaks later goes on when the server is back within `patience` seconds.
    """
    from cluster.client.resume import resuming

    def opened() -> Iterator[str]:
        texts = (message.text for message in resuming(client, request, timeout, patience))
        return chain([next(texts, "")], texts)

    return _patiently(opened, client, retries)


def _patiently(call: Callable[[], T], client: "Client", retries: int) -> T:
    """The result of a call, made again up to `retries` times when the server asks for that (RetryInfo)."""
    from cluster.client.failures import CallFailed, failing_plainly

    while True:
        try:
            with failing_plainly(client):
                return call()
        except CallFailed as error:
            if error.retry_seconds is None or retries <= 0:
                raise
            say(f"{error.text}; {retries} tries left")
            retries -= 1
            time.sleep(error.retry_seconds or 1.0)


COMMANDS = (generate, chat)
