"""The command line. Every command imports what it needs when it runs: `--help` answers at once."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.config import Config, load_config

app = typer.Typer(
    help="Serve Mixtral with one process per expert.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; see docs/operations.md.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a configuration key; may be repeated.")
]
RayAddress = Annotated[str, typer.Option("--ray-address", help="Ray cluster to join, for example auto.")]
Address = Annotated[str, typer.Option("--address", help="The server's gRPC HOST:PORT.")]

DEFAULT_ADDRESS = "127.0.0.1:50051"


def _config(file: Path | None, settings: list[str] | None, **options: str | bool) -> Config:
    given = [f"{key.replace('__', '.')}={value}" for key, value in options.items() if value not in ("", False)]
    try:
        return load_config(file, os.environ, [*(settings or []), *given])
    except ValueError as error:
        print(f"eightwinds: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


@app.command()
def serve(
    config: ConfigFile = None,
    model: Annotated[str, typer.Option(help="Checkpoint folder, hub id, or demo.")] = "",
    listen: Annotated[str, typer.Option(help="gRPC HOST:PORT.")] = "",
    http: Annotated[str, typer.Option(help="HTTP HOST:PORT.")] = "",
    ray_address: RayAddress = "",
    settings: Settings = None,
    insecure: Annotated[bool, typer.Option(help="Listen beyond loopback without authentication.")] = False,
    keep_actors: Annotated[bool, typer.Option(help="Leave the actors for the next serve.")] = False,
) -> None:
    """Bring head, experts and gateway up, and serve until SIGINT or SIGTERM."""
    loaded = _config(
        config,
        settings,
        model__path=model,
        gateway__listen=listen,
        gateway__http=http,
        cluster__ray_address=ray_address,
        security__insecure=insecure,
    )
    from cluster.serve import serve as run

    raise typer.Exit(run(loaded, keep_actors))


@app.command()
def down(config: ConfigFile = None, ray_address: RayAddress = "", settings: Settings = None) -> None:
    """Remove whatever a serve left behind."""
    loaded = _config(config, settings, cluster__ray_address=ray_address)
    from cluster.serve import down as run

    raise typer.Exit(run(loaded))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads standard input.")],
    address: Address = DEFAULT_ADDRESS,
    max_tokens: Annotated[int | None, typer.Option(help="At most this many tokens.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes the draw.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop at this text; may be repeated.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as one JSON object.")] = False,
) -> None:
    """Stream the continuation of a prompt. The exit code is 0, or 10 plus the gRPC status code."""
    from cluster.client import print_generation

    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt  # the newline that echo adds
    raise typer.Exit(print_generation(address, text, max_tokens, temperature, seed, stop or [], as_json))


@app.command()
def doctor(config: ConfigFile = None, settings: Settings = None) -> None:
    """Check machine, packages, GPU, Ray, ports, checkpoint and configuration."""
    from cluster.doctor import run

    raise typer.Exit(run(config, settings or []))


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
