"""`eightwinds plan`: sizing, before anything runs."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.options import ConfigFile, Settings
from cluster.cli.serve import configured
from cluster.cli.terminal import Destination, connected, refused

Sizes = list[str] | None


def plan(
    config: ConfigFile = None,
    model: Annotated[str, typer.Option(help="Checkpoint folder, hub id, or demo.")] = "",
    gpu_memory: Annotated[Sizes, typer.Option(help="Memory of a GPU: 24GiB, or 4x24GiB; may be repeated.")] = None,
    memory: Annotated[Sizes, typer.Option(help="Memory of a host without GPU; may be repeated.")] = None,
    link: Annotated[str, typer.Option(help="Speed of the links between machines.")] = "10Gb",
    gpu_reads: Annotated[str, typer.Option(help="What a GPU reads in a second; an L4's 300GB by default.")] = "",
    cpu_reads: Annotated[str, typer.Option(help="What a host's CPU reads in a second; 40GB by default.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Decodes in a step.")] = 32,
    address: Annotated[str, typer.Option(help="Take the hosts of this running server.")] = "",
    token_file: Annotated[Path | None, typer.Option(help="File with the bearer token for it.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Speak TLS with it; its certificate comes from this CA.")] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say who would sit where, whether it fits, and what bounds a step."""
    loaded = configured(config, settings, model__path=model)
    hosts = list(memory or [])
    if address:
        with connected("plan", Destination(address, token_file, ca=ca)) as client:
            nodes = [node for node in client.status().nodes if node.state == node.STATE_READY]
        hosts += [f"{node.memory_total_bytes}" for node in nodes]
    from cluster.launch.planning import Given, run

    given = Given(tuple(gpu_memory or ()), tuple(hosts), link, gpu_reads, cpu_reads, batch)
    try:
        raise typer.Exit(run(loaded, given, as_json))
    except ValueError as error:
        raise refused(error, "plan") from None


COMMANDS = (plan,)
