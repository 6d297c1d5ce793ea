"""`eightwinds generate` and `eightwinds chat`: a terminal in front of the client."""

import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cluster.client.client import (
    EXIT_BASE,
    CallFailed,
    Client,
    Options,
    Request,
    chat_request,
    failing_plainly,
    text_request,
    to_json,
)
from cluster.client.resume import resuming

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
_DEFAULT_WAIT = 1.0
_HELP = "/reset forgets the conversation, /exit (or the end of input) leaves, Ctrl-C stops an answer"


def generate(
    client: Client,
    prompt: str,
    options: Options,
    *,
    as_json: bool = False,
    timeout: float | None = None,
    retries: int = 0,
    patience: float = PATIENCE_SECONDS,
) -> int:
    """Print the continuation; the exit code is 0, EXIT_BASE plus the status code, or 2 for what cannot be asked.

    What the server asks to send again later (RetryInfo) is sent again up to `retries` times, as long as nothing has
    been printed. Several outputs come whole, one after the other; a single one comes as it is decoded, and goes on when
    a server that went away is back within `patience` seconds.
    """
    try:
        request = text_request(prompt, options)
    except ValueError as error:  # a number over the field's bits, or text that is no Unicode
        return _say(f"generate: {error}", 2)
    try:
        if as_json or (options.n or 1) > 1:
            answer = _patiently(lambda: client.generate(request, timeout), client, retries)
            print(to_json(answer) if as_json else "\n".join(f"[{o.index}] {o.text}" for o in answer.outputs))
            return 0
        for text in _texts(client, request, timeout, retries, patience):
            print(text, end="", flush=True)
        print()
        return 0
    except CallFailed as error:
        return _say(f"generate: {error.text}", EXIT_BASE + error.code, "\n")
    except KeyboardInterrupt:
        return 130


def chat(client: Client, options: Options, *, system: str = "", retries: int = 0) -> int:
    """A conversation: each line read is a turn. An answer that fails takes its question with it.

    The exit code is 0, or that of the last answer if it failed: what a script reads from a pipe.
    """
    try:
        models = _patiently(client.models, client, retries)
    except CallFailed as error:
        return _say(f"chat: {error.text}", EXIT_BASE + error.code)
    if not any(model.chat for model in models):
        return _say(f"chat: {models[0].id!r} has no chat template; use `eightwinds generate`", 2)
    opening = [("system", system)] if system else []
    messages, code = list(opening), 0
    if sys.stdin.isatty():
        print(_HELP, file=sys.stderr)
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
                print(_HELP, file=sys.stderr)
                continue
        turns = [*messages, ("user", line)]
        answer: list[str] = []
        try:
            request = chat_request(turns, options)
            for text in _texts(client, request, None, retries, PATIENCE_SECONDS):
                answer.append(text)
                print(text, end="", flush=True)
            print()
            messages, code = [*turns, ("assistant", "".join(answer).strip())], 0
        except ValueError as error:
            code = _say(f"chat: {error}", 2)
        except CallFailed as error:
            code = _say(f"chat: {error.text}", EXIT_BASE + error.code, "\n" if answer else "")
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


def _texts(client: Client, request: Request, timeout: float | None, retries: int, patience: float) -> Iterator[str]:
    """The texts of a stream, opened again as long as it fails before its first one, and then by `resuming`."""

    def opened() -> tuple[str | None, Iterator[str]]:
        texts = (message.text for message in resuming(client, request, timeout, patience))
        return next(texts, None), texts

    first, rest = _patiently(opened, client, retries)
    if first is not None:
        yield first
        yield from rest


def _patiently(call: Callable[[], T], client: Client, retries: int) -> T:
    """The result of a call, made again when the server says that it may be."""
    while True:
        try:
            with failing_plainly(client):
                return call()
        except CallFailed as error:
            if error.retry_seconds is None or retries <= 0:
                raise
            retries -= 1
            wait = error.retry_seconds or _DEFAULT_WAIT
            print(f"eightwinds: {error.text}; {retries + 1} tries left", file=sys.stderr)
            time.sleep(wait)


def _say(text: str, code: int, before: str = "") -> int:
    print(f"{before}eightwinds {text}", file=sys.stderr)
    return code
