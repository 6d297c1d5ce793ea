"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

import typer

from cluster.cli.generate import chat, generate
from cluster.cli.operate import drain, policy, scale
from cluster.cli.options import Command
from cluster.cli.serve import doctor, down, serve, token
from cluster.cli.status import events, status, top

COMMANDS: tuple[Command, ...] = (
    *(serve, down, generate, chat, token, doctor),
    *(status, top, scale, drain, policy, events),
)

app = typer.Typer(
    help="Serve Mixtral with one process per expert.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command()(command)


def main() -> None:
    app()
