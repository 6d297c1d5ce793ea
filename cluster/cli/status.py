"""`eightwinds status`, `top` and `events`: what runs, what it does, and what has happened to it."""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from cluster.cli.options import calls_server
from cluster.cli.terminal import console

if TYPE_CHECKING:
    from cluster.client.client import Client, Event, Expert, Load, LoadWindow, Node, Status

_SERVICE_COLUMNS = ("p50 ms", "p99 ms", "again", "hedged")


@calls_server()
def status(
    *,
    client: "Client",
    as_json: Annotated[bool, typer.Option("--json", help="Print GetStatus as one JSON object.")] = False,
) -> None:
    """Show nodes, experts, replicas and requests."""
    from cluster.client.messages import to_json

    found = client.status()
    if as_json:
        print(to_json(found))
        return
    out = console()
    out.print(_nodes(found))
    out.print(_heads(found))
    out.print(_experts(found))
    for expert in found.experts:
        if expert.note:
            out.print(f"expert {expert.expert}: {expert.note}", markup=False)
    for event in found.events:
        out.print(line_of(event), markup=False, highlight=False, soft_wrap=True)
    waiting = f"{found.running_request_count} running, {found.waiting_request_count} waiting"
    out.print(f"requests: {waiting}; placement revision {found.placement_revision}")


@calls_server()
def top(
    *,
    client: "Client",
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many looks; 0 goes on until Ctrl-C.")] = 0,
) -> None:
    """Watch every expert's load live."""
    out = console()
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
        for window in islice(client.watch_load(interval), count or None):
            if out.is_terminal:
                live.update(_load(window), refresh=True)
            else:
                out.print(_load(window))


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


def state_of(node_or_replica: Any) -> str:
    """The state in a message as a word, such as `ready`."""
    states = node_or_replica.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number
    return str(states[node_or_replica.state].name.rpartition("STATE_")[2].lower())


def line_of(event: "Event") -> str:
    """An event on one line, in local time."""
    when = event.event_time.ToDatetime(tzinfo=UTC).astimezone()
    what = event.Kind.Name(event.kind).removeprefix("KIND_").replace("_", " ").lower()
    parts = [f"#{event.sequence}", f"{when:%Y-%m-%d %H:%M:%S}", what]
    parts += [f"{name} {getattr(event, name)}" for name in ("expert", "replica") if event.HasField(name)]
    if event.node_id:
        parts.append(f"node {event.node_id[:12]}")
    if event.requester:
        parts.append(f"by {event.requester}")
    return " ".join(parts) + (f": {event.cause}" if event.cause else "")


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _nodes(found: "Status") -> Table:
    here = Counter(replica.node_id for expert in found.experts for replica in expert.replicas)

    def row(node: "Node") -> list[object]:
        memory = f"{node.memory_used_bytes / 2**30:.1f} of {node.memory_total_bytes / 2**30:.1f}"
        speed = f"{node.calls_per_second:.0f}" if node.calls_per_second else ""
        return [node.id[:12], node.address, state_of(node), node.accelerator_count, memory, speed, here[node.id]]

    columns = ("node", "address", "state", "GPUs", "memory GiB", "calls/s", "replicas")
    return _table("Nodes", columns, map(row, found.nodes))


def _heads(found: "Status") -> Table:
    rows = ([head.node_id[:12], state_of(head), head.restart_count] for head in found.heads)
    return _table("Heads", ("node", "state", "restarts"), rows)


def _experts(found: "Status") -> Table:
    def row(expert: "Expert") -> list[object]:
        replicas = "  ".join(
            f"{r.replica}:{state_of(r)}" + (f" (restarted {r.restart_count} x)" if r.restart_count else "")
            for r in expert.replicas
        )
        load = expert.load
        counts = [expert.desired_replica_count, load.token_count, f"{load.relative_load:.2f}"]
        return [expert.expert, replicas, *counts, *_service_cells(load)]

    columns = ("expert", "replicas", "wanted", "rows", "relative", *_SERVICE_COLUMNS)
    return _table("Experts", columns, map(row, found.experts))


def _load(window: "LoadWindow") -> Table:
    seconds = window.window.ToMilliseconds() / 1000
    most = max((load.token_count for load in window.experts), default=0)

    def row(load: "Load") -> list[object]:
        rate = f"{load.token_count / max(seconds, 1e-9):.0f}"
        bar = "\u2588" * round(20 * load.token_count / (most or 1))
        shares = f"{load.relative_load:.2f}", f"{100 * load.utilization:.0f} %"
        return [load.expert, rate, bar, *shares, load.queued_token_count, *_service_cells(load)]

    columns = ("expert", "rows/s", "", "relative", "busy", "queued", *_SERVICE_COLUMNS)
    return _table(f"Load of the experts in the last {seconds:.1f} s", columns, map(row, window.experts))


def _service_cells(load: "Load") -> list[object]:
    """The last cells of an expert's row: how long its calls compute, in ms, and how many were sent a second time."""
    times = [f"{t.ToMicroseconds() / 1000:.2f}" for t in (load.service_time_p50, load.service_time_p99)]
    return [*times, load.retry_count, load.hedge_count]


COMMANDS = (status, top, events)
