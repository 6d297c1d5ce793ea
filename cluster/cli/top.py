"""`eightwinds top`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from cluster.cli.options import DEFAULT_ADDRESS, Address, ClientToken
from cluster.cli.status import SERVICE_COLUMNS, service_cells
from cluster.cli.terminal import connected, console

if TYPE_CHECKING:
    from cluster.client.client import LoadWindow

commands = typer.Typer()


@commands.command()
def top(
    address: Address = DEFAULT_ADDRESS,
    token_file: ClientToken = None,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many looks; 0 goes on until Ctrl-C.")] = 0,
) -> None:
    """Watch every expert's load live."""
    out = console()
    with connected("top", address, token_file) as client:
        try:
            with Live(console=out, auto_refresh=False, transient=False) as live:
                for number, window in enumerate(client.watch_load(interval), 1):
                    if out.is_terminal:
                        live.update(_table(window), refresh=True)
                    else:
                        out.print(_table(window))
                    if number == count:
                        break
        except KeyboardInterrupt:
            return


def _table(window: "LoadWindow") -> Table:
    seconds = window.window.ToMilliseconds() / 1000
    table = Table("expert", "rows/s", "", "relative", "busy", "queued", *SERVICE_COLUMNS)
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
            *service_cells(load),
        )
    return table
