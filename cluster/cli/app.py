"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

import typer

from cluster.cli import generate, operate, plan, serve, status

app = typer.Typer(
    help="Serve Mixtral with one process per expert.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for family in (serve, generate, status, operate, plan):
    for command in family.COMMANDS:
        app.command()(command)
