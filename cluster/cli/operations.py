"""Commands of operators: what runs, what it does, and how many replicas there shall be."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import DEFAULT_ADDRESS, Address, ClientToken, client_of, refused

_ALL = "all"


def status(
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print GetStatus as one JSON object.")] = False,
) -> None:
    """Show nodes, experts, replicas and requests."""
    from cluster.cli import terminal_operations

    with client_of(address, token_file) as client:
        raise typer.Exit(terminal_operations.status(client, as_json=as_json))


def scale(
    expert: Annotated[str, typer.Argument(help="Expert's id, several with commas between, or all.")],
    replicas: Annotated[int, typer.Argument(help="How many replicas it shall have, at least 1.")],
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Show progress until it is done.")] = True,
) -> None:
    """Change how many replicas an expert has, while it serves. The exit code is 1 if it was taken back."""
    from cluster.cli import terminal_operations

    try:
        experts = None if expert == _ALL else [int(word) for word in expert.split(",")]
    except ValueError:
        raise refused(
            ValueError(f"{expert!r} is no expert: give its id, several with commas between, or all")
        ) from None
    with client_of(address, token_file) as client:
        raise typer.Exit(terminal_operations.scale(client, experts, replicas, dry_run=dry_run, wait=wait))


def drain(
    node: Annotated[str, typer.Argument(help="Node's id, or the beginning of it; see `status`.")],
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    deadline: Annotated[float | None, typer.Option(min=0.1, help="Seconds until what did not move stays.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="End a drain: the node takes replicas again.")] = False,
) -> None:
    """Move a node's replicas to others, without a failed request; then it may be taken away."""
    from cluster.cli import terminal_operations

    with client_of(address, token_file) as client:
        raise typer.Exit(terminal_operations.drain(client, node, deadline, cancel=cancel))


def policy(
    file: Annotated[Path | None, typer.Argument(help="YAML with the fields to change; without it nothing is.")] = None,
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
) -> None:
    """Show how experts are scaled by their load, or change it."""
    import yaml

    from cluster.cli import terminal_operations

    changes: object = {}
    try:
        if file is not None:
            changes = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(changes, dict) or (file is not None and not changes):
            raise ValueError(f"{file} must hold fields of the policy, such as `enabled: true`")
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise refused(ValueError(f"{file} cannot be read: {error}")) from None
    except ValueError as error:
        raise refused(error) from None
    with client_of(address, token_file) as client:
        raise typer.Exit(terminal_operations.policy(client, changes))


def top(
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many looks; 0 goes on until Ctrl-C.")] = 0,
) -> None:
    """Watch every expert's load live."""
    from cluster.cli import terminal_operations

    with client_of(address, token_file) as client:
        raise typer.Exit(terminal_operations.top(client, interval, count))
