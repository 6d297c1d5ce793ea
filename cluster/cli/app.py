"""The command line. Each file beside this one holds a family of commands, which import what they need when they run,
so that `--help` answers at once.
"""

import typer

from cluster.cli import doctor, events, generate, operate, serve, status, token

app = typer.Typer(
    help="Serve Mixtral with one process per expert.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for family in (serve, generate, token, doctor, status, operate, events):
    app.add_typer(family.commands)


def main() -> None:
    """Entry point of the console script."""
    app()
