"""`eightwinds status` and `top`: what runs, and what it does."""

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from cluster.cli.events import line_of
from cluster.cli.options import calls_server
from cluster.cli.terminal import console

if TYPE_CHECKING:
    from cluster.client.client import Client, Load, LoadWindow, Status

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


def state_of(node_or_replica: Any) -> str:
    """The state in a message as a word, such as `ready`."""
    states = node_or_replica.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number
    return str(states[node_or_replica.state].name.rpartition("STATE_")[2].lower())


def _nodes(found: "Status") -> Table:
    table = Table("node", "address", "state", "GPUs", "memory GiB", "replicas", title="Nodes")
    for node in found.nodes:
        here = sum(r.node_id == node.id for e in found.experts for r in e.replicas)
        memory = f"{node.memory_used_bytes / 2**30:.1f} of {node.memory_total_bytes / 2**30:.1f}"
        table.add_row(node.id[:12], node.address, state_of(node), str(node.accelerator_count), memory, str(here))
    return table


def _heads(found: "Status") -> Table:
    table = Table("node", "state", "restarts", title="Heads")
    for head in found.heads:
        table.add_row(head.node_id[:12], state_of(head), str(head.restart_count))
    return table


def _experts(found: "Status") -> Table:
    table = Table("expert", "replicas", "wanted", "rows", "relative", *_SERVICE_COLUMNS, title="Experts")
    for expert in found.experts:
        replicas = "  ".join(
            f"{r.replica}:{state_of(r)}" + (f" (restarted {r.restart_count} x)" if r.restart_count else "")
            for r in expert.replicas
        )
        table.add_row(
            str(expert.expert),
            replicas,
            str(expert.desired_replica_count),
            str(expert.load.token_count),
            f"{expert.load.relative_load:.2f}",
            *_service_cells(expert.load),
        )
    return table


def _load(window: "LoadWindow") -> Table:
    seconds = window.window.ToMilliseconds() / 1000
    table = Table("expert", "rows/s", "", "relative", "busy", "queued", *_SERVICE_COLUMNS)
    table.title = f"Load of the experts in the last {seconds:.1f} s"
    most = max((load.token_count for load in window.experts), default=0)
    for load in window.experts:
        table.add_row(
            str(load.expert),
            f"{load.token_count / max(seconds, 1e-9):.0f}",
            "\u2588" * (round(20 * load.token_count / most) if most else 0),
            f"{load.relative_load:.2f}",
            f"{100 * load.utilization:.0f} %",
            str(load.queued_token_count),
            *_service_cells(load),
        )
    return table


def _service_cells(load: "Load") -> list[str]:
    """The last cells of an expert's row: how long its calls compute, in ms, and how many were sent a second time."""
    return [
        f"{load.service_time_p50.ToMicroseconds() / 1000:.2f}",
        f"{load.service_time_p99.ToMicroseconds() / 1000:.2f}",
        str(load.retry_count),
        str(load.hedge_count),
    ]
