"""Commands as a test runs them: as a command line, or as a function whose standard streams are the test's."""

import os
from typing import Any

import typer
from typer.testing import CliRunner, Result

from cluster.cli.app import app
from cluster.cli.options import Command


def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
    """A command line, without the variables of the person who runs the tests."""
    theirs = {name: None for name in os.environ if name.startswith("EIGHTWINDS_")}
    return CliRunner().invoke(app, list(arguments), input=stdin, env={**theirs, **(env or {})})


def exit_code(command: Command, **given: Any) -> int:
    """The exit code of a command that is called as a function."""
    try:
        command(**given)
    except typer.Exit as end:
        return end.exit_code
    return 0
