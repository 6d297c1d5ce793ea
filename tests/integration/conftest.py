from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.heard_signals import let_children_hear_signals
from tests.integration.server import Server


class StartServer(Protocol):
    """Starts a server that is ended after the test, whatever happens."""

    def __call__(
        self, *arguments: str, state: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Server: ...


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> None:
    """A server that is started with SIGINT ignored goes on ignoring it, as it should."""
    let_children_hear_signals()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server on a local Ray for the whole session, the demo checkpoint with eight expert processes."""
    running = Server()
    try:
        yield running.wait_ready()
    finally:
        running.close()


@pytest.fixture
def start() -> Iterator[StartServer]:
    """Servers of a test's own."""
    started: list[Server] = []

    def start_one(*arguments: str, state: Path | None = None, environment: Mapping[str, str] | None = None) -> Server:
        started.append(Server(*arguments, state=state, environment=environment))
        return started[-1]

    yield start_one
    for running in started:
        running.close()


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `daemon.LOOPBACK` of cluster/launch/local_ray says, for a test whose own Ray is imported already."""
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
