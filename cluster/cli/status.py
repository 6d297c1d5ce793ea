"""`eightwinds status`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cluster.cli.options import DEFAULT_ADDRESS, Address, ClientToken
from cluster.cli.terminal import connected, console

if TYPE_CHECKING:
    from cluster.client.client import Load, Status

SERVICE_COLUMNS = ("p50 ms", "p99 ms", "again", "hedged")

commands = typer.Typer()


@commands.command()
def status(
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print GetStatus as one JSON object.")] = False,
) -> None:
    """Show nodes, experts, replicas and requests."""
    from cluster.client.messages import to_json

    with connected("status", address, token_file) as client:
        found = client.status()
    if as_json:
        print(to_json(found))
        return
    out = console()
    out.print(_nodes(found))
    out.print(_experts(found))
    for expert in found.experts:
        if expert.note:
            out.print(f"expert {expert.expert}: {expert.note}", markup=False)
    waiting = f"{found.running_request_count} running, {found.waiting_request_count} waiting"
    out.print(f"requests: {waiting}; placement revision {found.placement_revision}")


def state_of(node_or_replica: Any) -> str:
    """The state in a message as a word, such as `ready`."""
    states = node_or_replica.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number
    word: str = states[node_or_replica.state].name.rpartition("STATE_")[2].lower()
    return word


def service_cells(load: "Load") -> list[str]:
    """The last cells of an expert's row: how long its calls compute, in ms, and how many were sent a second time."""
    return [
        f"{load.service_time_p50.ToMicroseconds() / 1000:.2f}",
        f"{load.service_time_p99.ToMicroseconds() / 1000:.2f}",
        str(load.retry_count),
        str(load.hedge_count),
    ]


def _nodes(found: "Status") -> Table:
    table = Table("node", "address", "state", "GPUs", "memory GiB", "replicas", title="Nodes")
    for node in found.nodes:
        here = sum(r.node_id == node.id for e in found.experts for r in e.replicas)
        memory = f"{node.memory_used_bytes / 2**30:.1f} of {node.memory_total_bytes / 2**30:.1f}"
        table.add_row(node.id[:12], node.address, state_of(node), str(node.accelerator_count), memory, str(here))
    return table


def _experts(found: "Status") -> Table:
    table = Table("expert", "replicas", "wanted", "rows", "relative", *SERVICE_COLUMNS, title="Experts")
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
            *service_cells(expert.load),
        )
    return table
