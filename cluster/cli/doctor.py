"""`eightwinds doctor`."""

import typer

from cluster.cli.options import ConfigFile, Settings

commands = typer.Typer()


@commands.command()
def doctor(config: ConfigFile = None, settings: Settings = None) -> None:
    """Check machine, packages, GPU, Ray, ports, checkpoint and configuration."""
    from cluster.launch.doctor import run

    raise typer.Exit(run(config, settings or []))
