"""Options that several commands share."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cluster.cli.terminal import Destination, connected
from cluster.settings.request_options import REQUEST_OPTIONS, Options

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; see docs/operations.md.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a configuration key; may be repeated.")
]
RayAddress = Annotated[str, typer.Option("--ray-address", help="Ray cluster to join, for example auto.")]
Retries = Annotated[int, typer.Option(min=0, help="Send again what the server asks to be sent again, this often.")]

Command = Callable[..., None]


def calls_server(*, without: Collection[str] = (), interrupted: str = "") -> Callable[[Command], Command]:
    """Makes a command from a function with a parameter `client`, which becomes --address, --token-file and the options
    of TLS, and perhaps `options`, which becomes an option for each field of `Options` but those `without`. A failed
    call ends the command, and so does Ctrl-C, with what `interrupted` says.
    """
    connection = [
        _parameter("address", "The server's gRPC HOST:PORT.", str, "127.0.0.1:50051"),
        _parameter("token_file", "File with the bearer token; else EIGHTWINDS_TOKEN is taken.", Path | None, None),
        _parameter("tls", "Speak TLS with a server whose certificate browsers would trust.", bool, False),
        _parameter("ca", "Speak TLS; the server's certificate comes from this CA (PEM).", Path | None, None),
        _parameter("cert", "Certificate to show to a server that asks for one (PEM).", Path | None, None),
        _parameter("key", "Key of that certificate (PEM).", Path | None, None),
    ]
    kinds = get_type_hints(Options)
    asked = [
        _parameter(field.name, REQUEST_OPTIONS[field.name].help, kinds[field.name], field.default)
        for field in fields(Options)
        if field.name not in without
    ]

    def made(function: Command) -> Command:
        signature = inspect.signature(function)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += {"client": connection, "options": asked}.get(parameter.name, [parameter])

        def command(**given: Any) -> None:
            server = Destination(
                **{parameter.name: given.pop(parameter.name, parameter.default) for parameter in connection}
            )
            if "options" in signature.parameters:
                values = {p.name: given.pop(p.name, None) for p in asked}
                given["options"] = Options(**{name: value for name, value in values.items() if value is not None})
            with connected(function.__name__, server, interrupted) as client:
                function(client=client, **given)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return made


def _parameter(name: str, explained: str, kind: Any, default: Any) -> inspect.Parameter:
    """The annotation that typer turns into an option."""
    if default == ():  # may be repeated
        kind, default = list[str] | None, None
    option = typer.Option(f"--{name.replace('_', '-')}", help=explained)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
