"""`eightwinds events`: what has happened to the cluster, and what happens."""

from contextlib import suppress
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.cli.options import calls_server

if TYPE_CHECKING:
    from cluster.client.client import Client, Event


@calls_server()
def events(
    *,
    client: "Client",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only events after this number.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a JSON object.")] = False,
) -> None:
    """Show what has happened: deaths, restarts, joins, scalings, drains, lost heads and nodes, with their causes."""
    from cluster.client.messages import to_json

    with suppress(KeyboardInterrupt):
        for event in client.events(after, follow):
            print(to_json(event) if as_json else line_of(event), flush=True)


def line_of(event: "Event") -> str:
    """An event on one line, in local time."""
    when = event.event_time.ToDatetime(tzinfo=UTC).astimezone()
    what = event.Kind.Name(event.kind).removeprefix("KIND_").replace("_", " ").lower()
    parts = [f"#{event.sequence}", f"{when:%Y-%m-%d %H:%M:%S}", what]
    if event.HasField("expert"):
        parts.append(f"expert {event.expert}")
    if event.HasField("replica"):
        parts.append(f"replica {event.replica}")
    if event.node_id:
        parts.append(f"node {event.node_id[:12]}")
    if event.requester:
        parts.append(f"by {event.requester}")
    return " ".join(parts) + (f": {event.cause}" if event.cause else "")
