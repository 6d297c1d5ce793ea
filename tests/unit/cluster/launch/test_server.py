"""The composition root over actors that are none: what it brings up in which order, and what it lets go of when."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from actors.replica import ReplicaId
from actors.seams import HeadLost
from actors.vitals import Pulse
from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.control.fixed import FixedReplicas
from cluster.engine.generation import GenerationFailed
from cluster.engine.served_model import ServedModel
from cluster.gateway import health
from cluster.gateway.errors import ApiError
from cluster.launch import serve
from cluster.launch.in_process import InProcess
from cluster.launch.local_ray import daemon
from cluster.launch.process.shutdown import Shutdown
from cluster.launch.ray_runtime import RayRuntime
from cluster.launch.runtime import LaunchFailed, LaunchStopped
from cluster.launch.server import Server
from cluster.policy.replicas.lifecycle import State
from cluster.settings.config import Config, load_config
from tests.clusters import FakeCluster
from tests.fakes import PATIENCE, FakeHead
from tests.memories import FakeMemory


@dataclass
class Actors:
    """A `Runtime` and its `Deployment`, which note what is done to them."""

    head: FakeHead = field(default_factory=FakeHead)
    ops: FakeCluster | None = None
    pulses: Mapping[ReplicaId, Pulse] = field(default_factory=dict)
    error: Exception | None = None
    memory: FakeMemory | None = None
    why: str = ""
    done: list[str] = field(default_factory=list)

    def await_turn(self, stop: threading.Event, obstacle: Callable[[], str]) -> None:
        self.done.append("await")

    def start(self, stop: threading.Event) -> "Actors":
        self.done.append("start")
        if self.error is not None:
            raise self.error
        return self

    def abandon(self) -> None:
        self.done.append("abandon")

    def broken(self) -> str:
        return self.why

    def close(self, keep: bool) -> None:
        self.done.append("keep" if keep else "end")


SETTINGS = ("gateway.listen=127.0.0.1:0", "gateway.http=127.0.0.1:0")


def config(*settings: str) -> Config:
    return load_config(None, {}, [*SETTINGS, *settings])


async def opened(demo: ServedModel, actors: Actors, *settings: str) -> Server:
    server = Server(config(*settings), demo, actors)
    await server.start(threading.Event())
    await server.open()
    return server


@pytest.mark.parametrize("keep", [True, False])
async def test_actors_that_came_up_end_unless_they_are_kept(demo: ServedModel, keep: bool) -> None:
    actors = Actors()
    server = await opened(demo, actors)
    await server.close(keep)
    assert actors.done == ["start", "keep" if keep else "end"]
    assert not server.engine.alive


async def test_a_start_that_never_began_or_failed_is_abandoned_whether_or_not_actors_are_kept(
    demo: ServedModel,
) -> None:
    never = Actors()
    await Server(config(), demo, never).close(keep_actors=True)
    assert never.done == ["abandon"]
    failed = Actors(error=LaunchFailed("no node"))
    server = Server(config(), demo, failed)
    with pytest.raises(LaunchFailed):
        await server.start(threading.Event())
    await server.close(keep_actors=True)
    assert failed.done == ["start", "abandon"]


async def test_requests_are_refused_until_it_is_open(demo: ServedModel) -> None:
    server = Server(config(), demo, Actors())
    await server.start(threading.Event())
    await server.warm_up()
    with pytest.raises(ApiError, match="loading"):
        server.gateway.backend.require()
    await server.open()
    serving = server.gateway.backend.require()
    assert (serving.generations, serving.engine) == (server.generations, server.engine)
    await server.close(keep_actors=False)


async def test_replicas_that_an_earlier_server_has_added_are_adopted_and_wanted_still(demo: ServedModel) -> None:
    cluster = FakeCluster("n0")
    keys = [ReplicaId(expert, 0) for expert in range(8)] + [ReplicaId(3, 1), ReplicaId(3, 4)]
    actors = Actors(ops=cluster, pulses={key: cluster.process(key) for key in keys})
    server = await opened(demo, actors, "experts.replicas=2")
    serving = server.gateway.backend.require()
    controller = serving.controller
    assert isinstance(controller, Controller) and isinstance(serving.autoscaler, Autoscaler)
    snapshot = controller.snapshot()
    assert snapshot.desired == (2, 2, 2, 3, 2, 2, 2, 2)
    assert {m.id for m in snapshot.members if m.state is State.READY} >= set(keys)
    await server.close(keep_actors=True)
    assert not cluster.stopped and not controller._ticker._thread.is_alive()


async def test_where_replicas_are_fixed_nothing_controls_them(demo: ServedModel) -> None:
    server = await opened(demo, Actors())
    serving = server.gateway.backend.require()
    assert isinstance(serving.controller, FixedReplicas) and isinstance(serving.autoscaler, FixedReplicas)
    await server.close(keep_actors=False)


async def test_it_is_beyond_help_when_its_ground_or_its_engine_is_gone(
    demo: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "INTERVAL", 1e9)  # the test looks
    actors = Actors()
    server = await opened(demo, actors)
    looks = server.gateway.backend.require().health
    looks.look_now()
    assert server.beyond_help(90.0) == ""
    actors.why = "Ray's own raylet has ended"
    looks.look_now()
    assert server.beyond_help(90.0) == "Ray's own raylet has ended"
    actors.why = ""
    looks.look_now()
    assert server.beyond_help(90.0) == ""
    await asyncio.to_thread(server.engine.stop)
    assert server.beyond_help(90.0) == "the engine has ended"
    await server.close(keep_actors=False)


def test_where_actors_run_is_chosen_by_runtime(demo: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "0")
    prepared: list[tuple[str, str, int]] = []
    monkeypatch.setattr(daemon, "prepare", lambda *given: prepared.append(given))
    assert isinstance(serve._runtime(config("runtime=in_process"), demo), InProcess)
    assert not prepared and os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] == "0"
    ray = serve._runtime(config("cluster.namespace=mine", "cluster.ray_address=auto"), demo)
    assert isinstance(ray, RayRuntime) and prepared == [("mine", "auto", 9)]
    assert os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] == "1"
    ray.abandon()  # nothing of a cluster that is joined


# ---- serve ----

Serve = Callable[..., int]


@pytest.fixture
def run(demo: ServedModel, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`serve` on these actors; when it is ready it is signalled as often as said."""

    def run(actors: Actors, *settings: str, signals: int = 1, keep: bool = False) -> int:
        shutdowns: list[Shutdown] = []

        def shutdown(loop: asyncio.AbstractEventLoop, bound: float, force: Callable[[], None]) -> Shutdown:
            shutdowns.append(Shutdown(loop, bound, force, lambda seconds, call: None))
            return shutdowns[-1]

        def ready(*given: object) -> None:
            for _ in range(signals):
                shutdowns[0].signalled()

        monkeypatch.setattr(serve, "Shutdown", shutdown)
        monkeypatch.setattr(Shutdown, "listen", lambda self: None)
        monkeypatch.setattr(serve, "_runtime", lambda config, served: actors)
        monkeypatch.setattr(serve, "_say_ready", ready)
        monkeypatch.setattr(serve, "_check_machine", lambda config, served: None)
        monkeypatch.setattr(ServedModel, "open", lambda path: demo)
        return serve.serve(config(*settings), keep)

    return run


def test_a_server_that_is_asked_to_end_drains_and_exits_with_0(run: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    actors = Actors()
    assert run(actors) == 0
    assert actors.done == ["await", "start", "end"]
    assert actors.head.plans, "it was warmed up"
    assert capsys.readouterr().err.startswith("draining: running requests finish")
    kept = Actors()
    assert run(kept, keep=True) == 0 and kept.done == ["await", "start", "keep"]


def test_a_server_that_ends_by_itself_exits_with_1(run: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "beyond_help", lambda self, patience: f"the head is away for {patience:g} s")
    actors = Actors()
    assert run(actors, "head.grace_s=1", "head.hang_s=2", signals=0) == 1
    assert actors.done == ["await", "start", "end"]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (LaunchFailed("no node took the head"), 1, "eightwinds serve: no node took the head\n"),
        (HeadLost("it was ended"), 1, "eightwinds serve: it was ended\n"),
        (GenerationFailed("stopped"), 1, "eightwinds serve: the warm-up request failed; the log above says why\n"),
        (LaunchStopped(), 0, ""),
    ],
)
def test_a_start_that_fails_is_undone_and_said(
    error: Exception, code: int, says: str, run: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    actors = Actors(error=error)
    assert run(actors) == code
    assert actors.done == ["await", "start", "abandon"]
    assert capsys.readouterr().err == says


def test_what_is_wrong_early_is_said_before_anything_starts(run: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    actors = Actors()
    for setting, says in [
        ("gateway.listen=0.0.0.0:0", "can be reached from other machines"),
        ("experts.count=4", "the checkpoint has 8 experts"),
        ("security.token_file=/nowhere", "/nowhere"),
        ("gateway.http=192.0.2.1:1", "192.0.2.1:1"),
    ]:
        assert run(actors, setting) == 1
        assert says in capsys.readouterr().err
    assert actors.done == []


async def test_a_request_under_way_is_cut_off_after_the_grace(demo: ServedModel) -> None:
    actors = Actors()
    server = await opened(demo, actors)
    actors.head.hold()
    running = asyncio.create_task(server.warm_up())
    await asyncio.to_thread(actors.head.wait_for_plan)
    assert not await server.gateway.drain(0.0)
    with pytest.raises(GenerationFailed):
        await asyncio.wait_for(running, PATIENCE)
    actors.head.let_go()
    await server.close(keep_actors=False)
