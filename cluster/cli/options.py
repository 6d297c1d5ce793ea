"""Options that several commands share."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from cluster.settings.request_options import REQUEST_OPTIONS, Options

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; see docs/operations.md.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Set a configuration key; may be repeated.")
]
RayAddress = Annotated[str, typer.Option("--ray-address", help="Ray cluster to join, for example auto.")]
Address = Annotated[str, typer.Option("--address", help="The server's gRPC HOST:PORT.")]
ClientToken = Annotated[
    Path | None, typer.Option("--token-file", help="File with the bearer token; else EIGHTWINDS_TOKEN is taken.")
]
Retries = Annotated[int, typer.Option(min=0, help="Send again what the server asks to be sent again, this often.")]

DEFAULT_ADDRESS = "127.0.0.1:50051"

Command = Callable[..., None]


def with_request_options(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Replaces a command's parameter `options` by one parameter for each field of `Options`, but those `without`.

    `def chat(address: Address, *, options: Options)` becomes `def chat(address, *, max_tokens=None, ...)`.
    """
    added = [_parameter(field.name, field.default) for field in fields(Options) if field.name not in without]

    def replaced(command: Command) -> Command:
        @wraps(command)
        def with_each(**given: Any) -> None:
            values = {parameter.name: given.pop(parameter.name, None) for parameter in added}
            command(options=Options(**{k: v for k, v in values.items() if v is not None}), **given)

        signature = inspect.signature(command)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += added if parameter.name == "options" else [parameter]
        with_each.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return with_each

    return replaced


def _parameter(name: str, default: Any) -> inspect.Parameter:
    """What typer makes the option of a request's field from."""
    kind: Any = get_type_hints(Options)[name]
    if default == ():  # may be repeated
        kind, default = list[str] | None, None
    option = typer.Option(f"--{name.replace('_', '-')}", help=REQUEST_OPTIONS[name].help)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
