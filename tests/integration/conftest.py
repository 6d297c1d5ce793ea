from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from tests.heard_signals import let_children_hear_signals
from tests.integration.server import Server
from tests.integration.small import EXPERTS, write_small


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


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("small"))


@pytest.fixture
def start(small: Path) -> Iterator[StartServer]:
    """Servers of a test's own, on the small checkpoint unless the test names another."""
    started: list[Server] = []
    usual = ("--model", str(small), "--set", f"experts.count={EXPERTS}")

    def start_one(*arguments: str, state: Path | None = None, environment: Mapping[str, str] | None = None) -> Server:
        given = arguments if "--model" in arguments else (*usual, *arguments)
        started.append(Server(*given, state=state, environment=environment))
        return started[-1]

    yield start_one
    for running in started:
        running.close()


@pytest.fixture
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `daemon.LOOPBACK` of cluster/launch/local_ray says, for a test whose own Ray is imported already."""
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
