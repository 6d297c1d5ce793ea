"""`eightwinds serve`, `down`, `doctor`, `inspect` and `token`: what an operator does beside the server."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import ConfigFile, RayAddress, Settings
from cluster.cli.terminal import refused
from cluster.settings.config import Config, load_config


def serve(
    config: ConfigFile = None,
    model: Annotated[str, typer.Option(help="Checkpoint folder, hub id, or demo.")] = "",
    listen: Annotated[str, typer.Option(help="gRPC HOST:PORT.")] = "",
    http: Annotated[str, typer.Option(help="HTTP HOST:PORT.")] = "",
    ray_address: RayAddress = "",
    settings: Settings = None,
    token_file: Annotated[str, typer.Option(help="Hashes of the tokens that callers need; see `token`.")] = "",
    cert: Annotated[str, typer.Option(help="Certificate of both ports, in PEM, with the chain to its CA.")] = "",
    key: Annotated[str, typer.Option(help="Key of that certificate, in PEM.")] = "",
    client_ca: Annotated[str, typer.Option(help="Let in only clients with a certificate of this CA.")] = "",
    insecure: Annotated[bool, typer.Option(help="Listen beyond loopback without TLS or tokens.")] = False,
    keep_actors: Annotated[bool, typer.Option(help="Leave the actors for the next serve.")] = False,
) -> None:
    """Bring head, experts and gateway up, and serve until SIGINT or SIGTERM."""
    loaded = configured(
        config,
        settings,
        model__path=model,
        gateway__listen=listen,
        gateway__http=http,
        cluster__ray_address=ray_address,
        security__token_file=token_file,
        security__certificate=cert,
        security__key=key,
        security__client_ca=client_ca,
        security__insecure=insecure,
    )
    from cluster.launch.serve import serve as run

    raise typer.Exit(run(loaded, keep_actors))


def down(
    config: ConfigFile = None,
    ray_address: RayAddress = "",
    settings: Settings = None,
    cache: Annotated[bool, typer.Option("--cache", help="Also the weights that hosts of the cluster hold.")] = False,
) -> None:
    """Remove whatever a serve left behind."""
    loaded = configured(config, settings, cluster__ray_address=ray_address)
    from cluster.launch.serve import down as run

    raise typer.Exit(run(loaded, cache))


def doctor(config: ConfigFile = None, settings: Settings = None) -> None:
    """Check machine, packages, GPU, Ray, ports, checkpoint and configuration."""
    from cluster.launch.doctor import run

    raise typer.Exit(run(config, settings or []))


def inspect(
    folder: Annotated[str, typer.Argument(help="Checkpoint folder, hub id, or demo.")],
    config: ConfigFile = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what a checkpoint is, what each actor would hold, and what would be refused."""
    loaded = configured(config, settings, model__path=folder)
    from cluster.launch.inspection import run

    try:
        raise typer.Exit(run(loaded, as_json))
    except ValueError as error:
        raise refused(error) from None


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


def configured(file: Path | None, settings: list[str] | None, **options: str | bool) -> Config:
    """File, environment, `--set` and the `options` that were given, a__b for the key a.b; a fault ends the command."""
    given = [f"{key.replace('__', '.')}={value}" for key, value in options.items() if value not in ("", False)]
    try:
        return load_config(file, os.environ, [*(settings or []), *given])
    except ValueError as error:
        raise refused(error) from None


COMMANDS = (serve, down, doctor, inspect, token)
