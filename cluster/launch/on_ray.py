"""Brings head and experts up on Ray, or adopts those that run already. The only module here that imports Ray."""

import logging
import re
import threading
import time
from collections.abc import Collection, Mapping
from typing import Any, Literal

import ray

from actors.remote.actors import (
    find_actor,
    pulses_in,
    reports_of,
    start_actor,
    stop_actors,
)
from actors.remote.exits import memory_exits
from actors.remote.head import RemoteHead
from actors.remote.machines import machines
from actors.remote.replicas import RayReplicas
from actors.replica import ReplicaId
from actors.specs import ActorSpec
from actors.vitals import Pulse
from cluster.launch.local_ray import daemon
from cluster.launch.local_ray.auth import ADVICE, answers, ray_auth
from cluster.launch.local_ray.record import LocalRay
from cluster.launch.runtime import LaunchFailed, LaunchStopped, ProgressReport
from cluster.launch.specs import actor_specs, needs_of
from cluster.policy.replicas.lifecycle import MOST_FAILURES
from cluster.policy.replicas.readiness import Readiness
from cluster.policy.replicas.start_plan import Actor, StartPlan, plan_start
from cluster.settings.config import ActorSection, Config
from model.checkpoint.folder import Checkpoint

log = logging.getLogger("eightwinds.launch")

_POLL = 0.25
_BEGIN_SECONDS = 120.0  # for a head whose process has not answered yet
HEAD_NAME: Literal["head"] = "head"
_EXPERT_NAME = re.compile(r"expert-(\d+)-(\d+)")


def expert_name(expert: int, index: int) -> str:
    """The Ray name of an expert's replica."""
    return f"expert-{expert}-{index}"


def _replica(name: str) -> ReplicaId | None:
    """What `expert_name` was given, or None for another name."""
    found = _EXPERT_NAME.fullmatch(name)
    return ReplicaId(int(found[1]), int(found[2])) if found else None


def _name(actor: Actor) -> str:
    return HEAD_NAME if actor == "head" else expert_name(*actor)


def launch(
    config: Config,
    checkpoint: Checkpoint,
    local: LocalRay | None,
    report: ProgressReport,
    stop: threading.Event,
) -> "RayDeployment":
    """Start or adopt all actors and wait for their weights; raises LaunchFailed or LaunchStopped, and then leaves
    nothing new behind. `local` is the Ray that `local_ray.prepare` began to start, None to join
    `cluster.ray_address`.
    """
    actors = _Actors(config, checkpoint)
    try:
        if local is not None:
            report("starting Ray", {})
            local = daemon.wait(local, stop, config.cluster.start_timeout_s)
            local.keep_fresh()
        _connect(config, local)
        handles = actors.start_all(stop)
        readiness = Readiness(handles, actors.dispensable())
        try:
            _wait_for_weights(readiness, handles, report, stop, config.cluster.start_timeout_s)
        finally:  # what failed is not to be found by the next launch, nor routed to by this one
            for name, why in readiness.failed.items():
                log.warning("%s is ended: %s", name, why)
            stop_actors(list(readiness.failed), config.cluster.namespace)
    except BaseException:
        _let_go(actors.new, config, local)
        raise
    return RayDeployment(config, local, actors, {name: handles[name] for name in readiness.names}, readiness.pulses)


class RayDeployment:
    """See `cluster.launch.runtime.Deployment`."""

    def __init__(
        self,
        config: Config,
        local: LocalRay | None,
        actors: "_Actors",
        handles: Mapping[str, Any],
        pulses: Mapping[str, Pulse],
    ) -> None:
        """`handles` and `pulses` of all actors that run, by name."""
        self._config, self._local = config, local
        self._essentials = daemon.essentials(local) if local is not None else {}
        experts = {r: (name, handle) for name, handle in handles.items() if (r := _replica(name)) is not None}
        self.pulses = {r: pulses[name] for r, (name, _) in experts.items()}
        self.ops = RayReplicas(handles[HEAD_NAME], experts, actors.start_expert, config.cluster.namespace)
        self.ops.adopt(self.pulses)
        self.head = RemoteHead(
            handles[HEAD_NAME], self.ops.routes, config.experts.grace_s, config.head.hang_s, _BEGIN_SECONDS
        )

    def broken(self) -> str:
        """Which of Ray's own processes on this machine have ended: nothing starts them anew."""
        return daemon.broken(self._essentials)

    def close(self, keep: bool) -> None:
        if not keep:
            _let_go([HEAD_NAME, *self.ops.names()], self._config, self._local)
            return
        ray.shutdown()
        if self._local is not None:
            self._local.let_go()


def _connect(config: Config, local: LocalRay | None) -> None:
    address = config.cluster.ray_address if local is None else local.address
    auth = ray_auth()
    if local is None and auth.problem(address)[0] == "warn":
        log.warning("%s: %s", auth.problem(address)[1], ADVICE)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address,
            namespace=config.cluster.namespace,
            log_to_driver=False,
            configure_logging=False,
        )
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
        raise LaunchFailed(auth.refused(address, answers(_resolved(address)), error)) from None


def _resolved(address: str) -> str:
    """HOST:PORT, also for `auto`; unchanged if Ray cannot tell."""
    try:
        services: Any = ray._private.services
        return str(services.canonicalize_bootstrap_address(address) or address)
    except Exception:  # Ray's own, of several kinds
        return address


class _Actors:
    """Starts and finds actors of a configuration. `new` are the names of those that did not run before."""

    def __init__(self, config: Config, checkpoint: Checkpoint) -> None:
        self._config, self._namespace = config, config.cluster.namespace
        self._head_spec, self._expert_specs = actor_specs(config, checkpoint)
        self._plan = StartPlan({}, False, [], [])
        self.new: list[str] = []

    def start_all(self, stop: threading.Event) -> dict[str, Any]:
        """Handles by name, of the actors of an earlier serve that can be kept and of those that are missing."""
        running = _running(self._namespace)
        reports = reports_of({name: handle for name in running if (handle := find_actor(name, self._namespace))})
        found = {actor: reports.get(name) for name, actor in running.items()}
        plan = plan_start(found, self._head_spec, self._expert_specs, self._config.experts.replicas)
        if stale := [_name(actor) for actor in plan.replaced]:
            log.info("replacing %s: they hold another checkpoint, run other code or do not answer", ", ".join(stale))
            stop_actors(stale, self._namespace)
        self._plan = plan
        self.new = [_name(r) for r in plan.missing] + ([] if plan.head_kept else [HEAD_NAME])
        handles: dict[str, Any] = {HEAD_NAME: self._start(HEAD_NAME, self._head_spec)}
        nodes = self._nodes(handles[HEAD_NAME], stop)
        for replica_id in [*plan.kept, *plan.missing]:
            name, handle = self.start_expert(replica_id, nodes.get(replica_id, ""))
            handles[name] = handle
        return handles

    def dispensable(self) -> dict[str, list[str]]:
        """See `StartPlan.dispensable`, by name."""
        return {_name(r): [_name(other) for other in others] for r, others in self._plan.dispensable().items()}

    def _nodes(self, head: Any, stop: threading.Event) -> dict[ReplicaId, str]:
        """Nodes for new experts, once it is known what the head takes; none where there is no choice."""
        alive = [node for node in machines() if node.alive]
        if len(alive) < 2 or not self._plan.missing:
            return {}
        if needs_of(self._config.head):
            _wait_for_node(head, stop, self._config.cluster.start_timeout_s)
            alive = [node for node in machines() if node.alive]
        return self._plan.nodes(alive, needs_of(self._config.experts))

    def start_expert(self, replica_id: ReplicaId, node_id: str, avoided: Collection[str] = ()) -> tuple[str, Any]:
        """Begin to start a replica, or find it: its name and handle."""
        name = _name(replica_id)
        return name, self._start(name, self._expert_specs[replica_id.expert], node_id, avoided)

    def _start(self, name: str, spec: ActorSpec, node_id: str = "", avoided: Collection[str] = ()) -> Any:
        section = self._config.head if spec.expert is None else self._config.experts
        return start_actor(name, spec, _reserved(section), self._namespace, node_id, avoided)


def _running(namespace: str) -> dict[str, Actor]:
    """Our actors there, by name."""
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [entry["name"] for entry in named if entry["namespace"] == namespace]
    found = {name: HEAD_NAME if name == HEAD_NAME else _replica(name) for name in names}
    return {name: actor for name, actor in found.items() if actor is not None}


def _wait_for_node(head: Any, stop: threading.Event, timeout: float) -> None:
    end, ref = time.monotonic() + timeout, head.pulse.remote()
    while not ray.wait([ref], timeout=_POLL)[0]:
        if stop.is_set():
            raise LaunchStopped
        if time.monotonic() > end:
            raise LaunchFailed(f"no node took the head within {timeout:g} s (`ray status` shows what it waits for)")


def _reserved(section: ActorSection) -> dict[str, Any]:
    """Options of Ray. Zero CPUs reserves none."""
    return {"num_cpus": section.num_cpus, "num_gpus": section.num_gpus, "resources": dict(section.resources) or None}


def _wait_for_weights(
    readiness: Readiness, handles: Mapping[str, Any], report: ProgressReport, stop: threading.Event, timeout: float
) -> None:
    """Call all actors until all have their weights at the same time: one that had may have ended meanwhile."""
    end, known = time.monotonic() + timeout, memory_exits()
    while True:
        refs = {handles[name].pulse.remote(): name for name in readiness.names}
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_POLL)
        pulses, lost, away = pulses_in((ref, refs[ref]) for ref in done)
        missed = readiness.note(pulses, lost, away, now=time.monotonic())
        full = [why for process, why in memory_exits().items() if process not in known] if lost or away else []
        if len(full) >= MOST_FAILURES:
            raise LaunchFailed(f"{len(full)} processes ended before all were ready: {full[-1]}")
        report("loading weights", readiness.progress())
        for name, why in missed.items():
            raise LaunchFailed(f"{name} could not load: {why}")
        if not (waiting := readiness.waiting):
            return
        if stop.is_set():
            raise LaunchStopped
        if time.monotonic() > end:
            raise LaunchFailed(
                f"{', '.join(sorted(waiting))} not ready after {timeout:g} s: does the cluster have the resources that "
                "head.* and experts.* ask for? (`ray status` shows pending actors)"
            )
        time.sleep(_POLL / 5)


def _let_go(names: list[str], config: Config, local: LocalRay | None) -> None:
    """End these actors, or all of Ray if it is our own."""
    if local is None:
        if ray.is_initialized():
            stop_actors(names, config.cluster.namespace)
            ray.shutdown()
        return
    if ray.is_initialized():
        ray.shutdown()
    local.remove()


def down(config: Config) -> list[str]:
    """Remove this namespace's actors from `cluster.ray_address`; returns a line for each."""
    _connect(config, None)
    namespace = config.cluster.namespace
    ours = list(_running(namespace))
    stop_actors(ours, namespace)
    ray.shutdown()
    return [f"removed actor {name}" for name in ours]
