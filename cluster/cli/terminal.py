"""The terminal that a command talks to: its connection to a server, its tables, and the exit code it ends with."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from cluster.client.client import Client

WRONG = 2  # the exit code of a command line or request that cannot be right
_INTERRUPTED = 130  # the shell's exit code for Ctrl-C
_PIPE_WIDTH = 160


def say(text: object, command: str = "") -> None:
    """Tell the user something on standard error, where no script takes it for the answer."""
    print(f"eightwinds {command}: {text}" if command else f"eightwinds: {text}", file=sys.stderr)


def refused(why: object, command: str = "") -> typer.Exit:
    """Say what is wrong with a command line; the exit code is 2."""
    say(why, command)
    return typer.Exit(WRONG)


@dataclass(frozen=True, slots=True)
class Destination:
    """The server of a command, and what the way to it takes: the options of that name."""

    address: str
    token_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@contextmanager
def connected(command: str, server: Destination, interrupted: str = "") -> Iterator["Client"]:
    """A client for a command, which a failed call ends with 10 plus the gRPC status code as its exit code, and Ctrl-C
    with 130 and what `interrupted` says.
    """
    from cluster.client.client import Client, read_token
    from cluster.client.failures import CallFailed, failing_plainly
    from cluster.client.tls import read_tls

    try:
        token, tls = read_token(server.token_file, os.environ), read_tls(server.tls, server.ca, server.cert, server.key)
        client = Client(server.address, token, tls)
    except ValueError as error:
        raise refused(error) from None
    try:
        with client, failing_plainly(client):
            yield client
    except CallFailed as error:
        say(error.text, command)
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        if interrupted:
            say(interrupted, command)
        raise typer.Exit(_INTERRUPTED) from None


def console() -> Console:
    """Where tables go; a pipe or a file is wide enough for every column."""
    found = Console()
    return found if found.is_terminal else Console(width=_PIPE_WIDTH)
