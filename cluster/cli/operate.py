"""`eightwinds scale`, `drain` and `policy`: what operators change while a server runs."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from cluster.cli.options import calls_server
from cluster.cli.status import state_of
from cluster.cli.terminal import refused, say

if TYPE_CHECKING:
    from cluster.client.client import Client

_LOOK_SECONDS = 0.5
_TAKEN_BACK = 1


@calls_server(interrupted="the change goes on without being watched")
def scale(
    expert: Annotated[str, typer.Argument(help="Expert's id, several with commas between, or all.")],
    replicas: Annotated[int, typer.Argument(help="How many replicas it shall have, at least 1.")],
    *,
    client: "Client",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Show progress until it is done.")] = True,
) -> None:
    """Change how many replicas an expert has, while it serves. The exit code is 1 if it was taken back."""
    try:
        experts = [] if expert == "all" else [int(word) for word in expert.split(",")]
    except ValueError:
        raise refused(f"{expert!r} is no expert: give its id, several with commas between, or all") from None
    experts = experts or [found.expert for found in client.status().experts]
    answer = client.scale(dict.fromkeys(experts, replicas), validate_only=dry_run)
    for change in answer.changes:
        where = f" on node {change.node_id[:12]}" if change.node_id else ""
        print(f"expert {change.expert}: {'start' if change.start else 'end'} a replica{where}")
    if not answer.changes:
        print("nothing to change")
    if wait and not dry_run:
        _follow_scaling(client, experts, replicas)


def _follow_scaling(client: "Client", experts: Sequence[int], replicas: int) -> None:
    """Show states until all of these experts' replicas are ready and as many as wanted, or the change is taken back."""
    before = ""
    while True:
        found = [expert for expert in client.status().experts if expert.expert in experts]
        states = {e.expert: [state_of(r) for r in e.replicas] for e in found}
        line = "; ".join(f"expert {e}: {', '.join(s)}" for e, s in states.items() if s != ["ready"] * replicas)
        if line != before and line:
            print(line, file=sys.stderr)
        before = line
        if kept := [e for e in found if e.desired_replica_count != replicas]:
            why = (f"expert {e.expert} keeps {e.desired_replica_count}: {e.note or 'scaled again'}" for e in kept)
            say(f"taken back: {'; '.join(why)}", "scale")
            raise typer.Exit(_TAKEN_BACK)
        if not line:
            print(f"done: {len(found)} {'expert' if len(found) == 1 else 'experts'} with {replicas} ready")
            return
        time.sleep(_LOOK_SECONDS)


@calls_server(interrupted="it goes on without being watched; --cancel ends it")
def drain(
    node: Annotated[str, typer.Argument(help="Node's id, or the beginning of it; see `status`.")],
    *,
    client: "Client",
    deadline: Annotated[float | None, typer.Option(min=0.1, help="Seconds until what did not move stays.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="End a drain: the node takes replicas again.")] = False,
) -> None:
    """Move a node's replicas to others, without a failed request; then it may be taken away."""
    found = [n.id for n in client.status().nodes if n.id.startswith(node)]
    if len(found) != 1:
        raise refused(f"{len(found)} nodes begin with {node!r}; `eightwinds status` lists them", "drain")
    client.drain(found[0], deadline, cancel)
    if not cancel:
        _follow_drain(client, found[0])


def _follow_drain(client: "Client", node_id: str) -> None:
    """Show how many replicas are left on a node until none is, or the drain is taken back."""
    before = -1
    while True:
        status = client.status()
        left = sum(r.node_id == node_id for e in status.experts for r in e.replicas)
        if left != before:
            print(f"{left} replicas on the node", file=sys.stderr)
        before = left
        if not left:
            print("done: no replica is on the node, and none will begin there")
            return
        if not any(n.id == node_id and state_of(n) == "draining" for n in status.nodes):
            notes = "; ".join(f"expert {e.expert}: {e.note}" for e in status.experts if e.note)
            say(f"taken back with {left} replicas there: {notes or 'the deadline passed'}", "drain")
            raise typer.Exit(_TAKEN_BACK)
        time.sleep(_LOOK_SECONDS)


@calls_server()
def policy(
    file: Annotated[Path | None, typer.Argument(help="YAML with the fields to change; without it nothing is.")] = None,
    *,
    client: "Client",
) -> None:
    """Show how experts are scaled by their load, or change it."""
    changes = _changes(file) if file is not None else {}
    try:
        found = client.set_policy(changes) if changes else client.status().policy
    except ValueError as error:
        raise refused(error, "policy") from None
    for field in found.DESCRIPTOR.fields:
        value = getattr(found, field.name)
        number = value.ToMilliseconds() / 1000 if field.name == "cooldown" else value
        print(f"{field.name}: {str(number).lower() if isinstance(number, bool) else format(number, 'g')}")


def _changes(file: Path) -> dict[str, object]:
    try:
        changes = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise refused(f"{file} cannot be read: {error}") from None
    if not isinstance(changes, dict) or not changes:
        raise refused(f"{file} must hold fields of the policy, such as `enabled: true`")
    return changes


COMMANDS = (scale, drain, policy)
