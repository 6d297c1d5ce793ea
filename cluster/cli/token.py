"""`eightwinds token`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.terminal import refused


def token(
    name: Annotated[str, typer.Argument(help="Whom the token is for.")],
    scope: Annotated[str, typer.Option(help="inference, cluster, or both with a comma between.")] = "inference",
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Highest priority of its requests.")] = 0,
    file: Annotated[Path | None, typer.Option("--file", help="Server's token file, to add the hash to.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="New file for the token, which only you can read.")] = None,
) -> None:
    """Make a bearer token: it is printed or written once, and only its hash is kept."""
    from cluster.settings.tokens import append, keep_secret, new_token, parse_scopes

    try:
        secret, entry = new_token(name, parse_scopes(scope), priority)
        if out is not None:
            keep_secret(out, secret)
        if file is not None:
            try:
                append(file, entry)
            except ValueError:
                if out is not None:
                    out.unlink()  # no server would accept it
                raise
        else:
            print(f"add this line to the server's token file:\n{entry.line()}", file=sys.stderr)
    except ValueError as error:
        raise refused(error) from None
    if out is None:
        print(secret)
