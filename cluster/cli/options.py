"""Options that several commands share, and what they are turned into."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cluster.client.client import Client

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; see docs/operations.md.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a configuration key; may be repeated.")
]
RayAddress = Annotated[str, typer.Option("--ray-address", help="Ray cluster to join, for example auto.")]
Address = Annotated[str, typer.Option("--address", help="The server's gRPC HOST:PORT.")]

ClientToken = Annotated[
    Path | None, typer.Option("--token-file", help="File with the bearer token; else EIGHTWINDS_TOKEN is taken.")
]
MaxTokens = Annotated[int | None, typer.Option(help="At most this many tokens.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
TopP = Annotated[float | None, typer.Option(help="Keep the likeliest tokens with this much probability.")]
TopK = Annotated[int | None, typer.Option(help="Keep this many of the likeliest tokens; 0 keeps all.")]
MinP = Annotated[float | None, typer.Option(help="Drop tokens less likely than this share of the likeliest.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1: against what prompt and text hold.")]
PresencePenalty = Annotated[float | None, typer.Option(help="-2 to 2: against what was put out at all.")]
FrequencyPenalty = Annotated[float | None, typer.Option(help="-2 to 2: against what was put out, each time.")]
Seed = Annotated[int | None, typer.Option(help="Fixes the draw.")]
Stop = Annotated[list[str] | None, typer.Option(help="Stop at this text; may be repeated.")]
Retries = Annotated[int, typer.Option(min=0, help="Send again what the server asks to be sent again, this often.")]

DEFAULT_ADDRESS = "127.0.0.1:50051"


def refused(error: ValueError) -> typer.Exit:
    """Say what is wrong with a command line; the exit code is 2."""
    print(f"eightwinds: {error}", file=sys.stderr)
    return typer.Exit(2)


def client_of(address: str, token_file: Path | None) -> "Client":
    """A connection with the token that was given."""
    from cluster.client.client import Client, read_token

    try:
        return Client(address, read_token(token_file, os.environ))
    except ValueError as error:
        raise refused(error) from None
