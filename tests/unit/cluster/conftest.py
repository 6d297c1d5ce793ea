"""Engines and servers that the tests share."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from actors.replica import ReplicaId
from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.engine import adoption
from cluster.engine.engine import Engine
from cluster.engine.served_model import ServedModel
from cluster.policy.replicas.lifecycle import ReplicaOptions
from cluster.policy.replicas.membership import Membership
from cluster.policy.replicas.scaling import ScalingPolicy
from tests.clusters import FakeCluster
from tests.engines import Make, engine_bounds
from tests.fakes import Events, FakeHead
from tests.serving import MESSAGE_BYTES, Serving, serve_locally

ServeFake = Callable[..., Serving]


@pytest.fixture(scope="session")
def demo() -> ServedModel:
    return ServedModel.open("demo")


@pytest.fixture(scope="session")
def serving(demo: ServedModel) -> Iterator[Serving]:
    """The demo checkpoint. Steps are small, so that prompts of more than 48 tokens come in chunks."""
    server = serve_locally(
        demo, "kv.memory_bytes=25165824", "scheduler.max_tokens_per_step=48", "scheduler.max_running_requests=16"
    )
    yield server
    server.close()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster("n0", "n1")


@pytest.fixture
def controlled(serving: Serving, cluster: FakeCluster) -> Iterator[Controller]:
    """The server with a controller of eight replicas on n0, whose rounds the test calls for."""
    membership = Membership([1] * 8, ReplicaOptions(retire_timeout=0.0))
    membership.adopt({ReplicaId(expert, 0): cluster.process((expert, 0)) for expert in range(8)}, 0.0)
    cluster.published.append(membership.routed())
    backend, alone = serving.gateway.backend, serving.gateway.backend.require()
    controller = Controller(cluster, membership, events=backend.events)
    autoscaler = Autoscaler(controller, ScalingPolicy(False, 1, 4, 16, 0.7, 0.2, 30), events=backend.events)
    backend.serving = replace(alone, controller=controller, autoscaler=autoscaler)
    yield controller
    backend.serving = alone


@pytest.fixture
def serve_fake(demo: ServedModel) -> Iterator[ServeFake]:
    """Makes servers of the demo vocabulary whose head computes nothing."""
    servers: list[Serving] = []

    def serve(
        head: FakeHead, served: ServedModel = demo, max_message_bytes: int = MESSAGE_BYTES, **bounds: int
    ) -> Serving:
        config = engine_bounds(window=head.window, **bounds)
        servers.append(Serving(served, max_message_bytes).ready(head, config))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


@pytest.fixture
def head() -> FakeHead:
    return FakeHead()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that is away is asked again at once."""
    monkeypatch.setattr(adoption, "_RETRY_SECONDS", 0.0)


@pytest.fixture
def make(head: FakeHead, events: Events, no_waits: None) -> Iterator[Make]:
    """Makes engines on the head, which tell the events."""
    engines: list[Engine] = []

    def make(
        max_running: int = 4,
        budget: int = 16,
        max_queued: int = 8,
        grace: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        ahead: bool = False,
        max_queued_tokens: int = 1 << 20,
    ) -> Engine:
        config = replace(engine_bounds(max_running, budget, max_queued, head.window, grace), plan_ahead=ahead)
        config = replace(config, queue=replace(config.queue, tokens=max_queued_tokens))
        engines.append(Engine(head, config, events, clock))
        engines[-1].start()
        return engines[-1]

    yield make
    head.let_go()
    for engine in engines:
        engine.stop()
        assert not engine._thread.is_alive()
