"""`eightwinds status`, `scale`, `drain`, `policy` and `top`: a terminal in front of the ClusterService."""

import sys
import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cluster.cli.events import line_of
from cluster.client.client import (
    EXIT_BASE,
    CallFailed,
    Client,
    LoadWindow,
    Status,
    failing_plainly,
    state_of,
    state_of_node,
    to_json,
)

_LOOK_SECONDS = 0.5
_PIPE_WIDTH = 160


def status(client: Client, *, as_json: bool = False) -> int:
    """Print what there is; the exit code is 0, or EXIT_BASE plus the status code."""
    try:
        with failing_plainly(client):
            found = client.status()
    except CallFailed as error:
        return _say(f"status: {error.text}", EXIT_BASE + error.code)
    if as_json:
        print(to_json(found))
        return 0
    console = _console()
    for table in _tables(found):
        console.print(table)
    for expert in found.experts:
        if expert.note:
            console.print(f"expert {expert.expert}: {expert.note}", markup=False)
    for event in found.events:
        console.print(line_of(event), markup=False, highlight=False, soft_wrap=True)
    waiting = f"{found.running_request_count} running, {found.waiting_request_count} waiting"
    console.print(f"requests: {waiting}; placement revision {found.placement_revision}")
    return 0


def _tables(found: Status) -> list[Table]:
    nodes = Table("node", "address", "state", "GPUs", "memory GiB", "replicas", title="Nodes")
    for node in found.nodes:
        here = sum(r.node_id == node.id for e in found.experts for r in e.replicas)
        memory = f"{node.memory_used_bytes / 2**30:.1f} of {node.memory_total_bytes / 2**30:.1f}"
        nodes.add_row(node.id[:12], node.address, state_of_node(node), str(node.accelerator_count), memory, str(here))
    experts = Table(
        "expert", "replicas", "wanted", "rows", "relative", "p50 ms", "p99 ms", "again", "hedged", title="Experts"
    )
    for expert in found.experts:
        load = expert.load
        replicas = "  ".join(
            f"{r.replica}:{state_of(r)}" + (f" (restarted {r.restart_count} x)" if r.restart_count else "")
            for r in expert.replicas
        )
        experts.add_row(
            str(expert.expert),
            replicas,
            str(expert.desired_replica_count),
            str(load.token_count),
            f"{load.relative_load:.2f}",
            f"{load.service_time_p50.ToMicroseconds() / 1000:.2f}",
            f"{load.service_time_p99.ToMicroseconds() / 1000:.2f}",
            str(load.retry_count),
            str(load.hedge_count),
        )
    return [nodes, experts]


def scale(
    client: Client, experts: Sequence[int] | None, replicas: int, *, dry_run: bool = False, wait: bool = True
) -> int:
    """Want so many replicas of these experts (None: of all), and show how far it is.

    The exit code is 0 when they are there, 1 if the change was taken back, or EXIT_BASE plus the status code.
    """
    try:
        with failing_plainly(client):
            if experts is None:
                experts = [expert.expert for expert in client.status().experts]
            answer = client.scale({expert: replicas for expert in experts}, validate_only=dry_run)
            for change in answer.changes:
                where = f" on node {change.node_id[:12]}" if change.node_id else ""
                print(f"expert {change.expert}: {'start' if change.start else 'end'} a replica{where}")
            if not answer.changes:
                print("nothing to change")
            if dry_run or not wait:
                return 0
            return _follow(client, experts, replicas)
    except CallFailed as error:
        return _say(f"scale: {error.text}", EXIT_BASE + error.code)
    except KeyboardInterrupt:
        return _say("scale: the change goes on without being watched", 130)


def _follow(client: Client, experts: Sequence[int], replicas: int) -> int:
    """Until these experts have so many replicas and all of them are ready."""
    before = ""
    while True:
        found = [expert for expert in client.status().experts if expert.expert in experts]
        states = {e.expert: [state_of(r) for r in e.replicas] for e in found}
        line = "; ".join(f"expert {e}: {', '.join(s)}" for e, s in states.items() if s != ["ready"] * replicas)
        if line != before and line:
            print(line, file=sys.stderr)
        before = line
        taken_back = [e for e in found if e.desired_replica_count != replicas]
        if taken_back:
            why = "; ".join(
                f"expert {e.expert} keeps {e.desired_replica_count}: {e.note or 'scaled again'}" for e in taken_back
            )
            return _say(f"scale: taken back: {why}", 1)
        if not line:
            print(f"done: {len(found)} {'expert' if len(found) == 1 else 'experts'} with {replicas} ready")
            return 0
        time.sleep(_LOOK_SECONDS)


def drain(client: Client, node: str, seconds: float | None, *, cancel: bool = False) -> int:
    """Move the replicas of a node (its id, or the beginning of it) to others, and show how far it is.

    The exit code is 0 when none is left there, 1 if they could not be moved, or EXIT_BASE plus the status code.
    """
    try:
        with failing_plainly(client):
            found = [n.id for n in client.status().nodes if n.id.startswith(node)]
            if len(found) != 1:
                return _say(f"drain: {len(found)} nodes begin with {node!r}; `eightwinds status` lists them", 2)
            client.drain(found[0], seconds, cancel)
            return 0 if cancel else _follow_drain(client, found[0])
    except CallFailed as error:
        return _say(f"drain: {error.text}", EXIT_BASE + error.code)
    except KeyboardInterrupt:
        return _say("drain: it goes on without being watched; --cancel ends it", 130)


def _follow_drain(client: Client, node_id: str) -> int:
    before = -1
    while True:
        status = client.status()
        left = sum(r.node_id == node_id for e in status.experts for r in e.replicas)
        if left != before:
            print(f"{left} replicas on the node", file=sys.stderr)
        before = left
        if not left:
            print("done: no replica is on the node, and none will begin there")
            return 0
        if not any(n.id == node_id and state_of_node(n) == "draining" for n in status.nodes):
            notes = "; ".join(f"expert {e.expert}: {e.note}" for e in status.experts if e.note)
            return _say(f"drain: taken back with {left} replicas there: {notes or 'the deadline passed'}", 1)
        time.sleep(_LOOK_SECONDS)


def policy(client: Client, changes: Mapping[str, object]) -> int:
    """Change these fields of the scaling policy, and print the one that is in force then, as YAML."""
    try:
        with failing_plainly(client):
            found = client.set_policy(changes) if changes else client.status().policy
    except CallFailed as error:
        return _say(f"policy: {error.text}", EXIT_BASE + error.code)
    except ValueError as error:
        return _say(f"policy: {error}", 2)
    for field in found.DESCRIPTOR.fields:
        value = getattr(found, field.name)
        number = value.ToMilliseconds() / 1000 if field.name == "cooldown" else value
        print(f"{field.name}: {str(number).lower() if isinstance(number, bool) else format(number, 'g')}")
    return 0


def top(client: Client, interval: float, count: int = 0) -> int:
    """Show what each expert does, look by look, until Ctrl-C (or `count` looks); in a pipe, a table after another."""
    console = _console()
    try:
        with failing_plainly(client), Live(console=console, auto_refresh=False, transient=False) as live:
            for number, window in enumerate(client.watch_load(interval), 1):
                table = _load_table(window)
                if console.is_terminal:
                    live.update(table, refresh=True)
                else:
                    console.print(table)
                if number == count:
                    break
        return 0
    except CallFailed as error:
        return _say(f"top: {error.text}", EXIT_BASE + error.code)
    except KeyboardInterrupt:
        return 0


def _load_table(window: LoadWindow) -> Table:
    seconds = window.window.ToMilliseconds() / 1000
    table = Table("expert", "rows/s", "", "relative", "busy", "queued", "p50 ms", "p99 ms", "again", "hedged")
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
            f"{load.service_time_p50.ToMicroseconds() / 1000:.2f}",
            f"{load.service_time_p99.ToMicroseconds() / 1000:.2f}",
            str(load.retry_count),
            str(load.hedge_count),
        )
    return table


def _console() -> Console:
    """The terminal; a pipe or a file is wide enough for every column."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


def _say(text: str, code: int) -> int:
    print(f"eightwinds {text}", file=sys.stderr)
    return code
