"""Brings head and experts up on Ray, or adopts those that run already. The only module here that imports Ray."""

import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ray

from actors.remote.actors import find_actor, pulses_in, reports_of, start_actor, stop_actors
from actors.remote.exits import memory_exits
from actors.remote.head import RemoteHead
from actors.remote.machines import machines
from actors.remote.memory import RayMemory
from actors.remote.replicas import RayReplicas
from actors.replica import ReplicaId
from actors.vitals import Pulse
from cluster.control.leadership import CannotLead, Leadership
from cluster.control.wishes import forget_wishes
from cluster.launch.local_ray import daemon
from cluster.launch.local_ray.auth import ADVICE, answers, ray_auth
from cluster.launch.local_ray.record import LocalRay
from cluster.launch.runtime import LaunchFailed, LaunchStopped, ProgressReport
from cluster.launch.specs import actor_specs, needs_of
from cluster.policy.replicas.lifecycle import MOST_FAILURES
from cluster.policy.replicas.readiness import Readiness
from cluster.policy.replicas.start_plan import Actor, StartPlan, plan_start
from cluster.settings.config import Config
from model.checkpoint.folder import Checkpoint

log = logging.getLogger("eightwinds.launch")

_POLL = 0.25
_BEGIN_SECONDS = 120.0  # for a head whose process has not answered yet
_EXPERT = re.compile(r"expert-(\d+)-(\d+)")


def name_of(actor: Actor) -> str:
    return "head" if actor == "head" else f"expert-{actor.expert}-{actor.index}"


def _named(name: str) -> Actor | None:
    """The actor that has this name; None if it is none of ours."""
    found = _EXPERT.fullmatch(name)
    return ReplicaId(int(found[1]), int(found[2])) if found else "head" if name == "head" else None


def lead(config: Config, stop: threading.Event, obstacle: Callable[[], str]) -> Leadership:
    """Join `cluster.ray_address`, and return when this process leads; raises LaunchFailed or LaunchStopped."""
    _connect(config, None)
    leadership = Leadership(RayMemory(config.cluster.namespace), f"serve on {platform.node()}, process {os.getpid()}")
    try:
        if not leadership.wait(stop, obstacle):
            raise LaunchStopped
    except CannotLead as error:
        raise LaunchFailed(str(error)) from None
    return leadership


def launch(
    config: Config,
    checkpoint: Checkpoint,
    local: LocalRay | None,
    leadership: Leadership | None,
    report: ProgressReport,
    stop: threading.Event,
) -> "RayDeployment":
    """Start or adopt all actors and wait for their weights; raises LaunchFailed or LaunchStopped, and then leaves
    nothing new behind. `local` is the Ray that `daemon.prepare` began to start; None where `lead` has joined a cluster.
    """
    actors = _Actors(config, checkpoint)
    try:
        if local is not None:
            report("starting Ray", {})
            local = daemon.wait(local, stop, config.cluster.start_timeout_s)
            local.keep_fresh()
            _connect(config, local)
        handles, readiness = actors.start_all(stop)
        try:
            _wait_for_weights(readiness, handles, leadership, report, stop, config.cluster.start_timeout_s)
        finally:  # what failed is not to be found by the next launch, nor routed to by this one
            for actor, why in readiness.failed.items():
                log.warning("%s is ended: %s", name_of(actor), why)
            stop_actors(list(map(name_of, readiness.failed)), config.cluster.namespace)
    except BaseException:
        awaited = leadership is not None and leadership.is_awaited()
        _let_go([] if awaited else actors.new, config, local, leadership)
        raise
    kept = {actor: handles[actor] for actor in readiness.actors}
    return RayDeployment(actors, local, leadership, kept, readiness.pulses)


class RayDeployment:
    """See `cluster.launch.runtime.Deployment`."""

    def __init__(
        self,
        actors: "_Actors",
        local: LocalRay | None,
        leadership: Leadership | None,
        handles: Mapping[Actor, Any],
        pulses: Mapping[Actor, Pulse],
    ) -> None:
        """`handles` and `pulses` of all actors that run."""
        config = self._config = actors.config
        self._local, self._leadership = local, leadership
        self.memory = RayMemory(config.cluster.namespace)
        self._essentials = daemon.essentials(local) if local is not None else {}
        experts = {actor: (name_of(actor), handle) for actor, handle in handles.items() if actor != "head"}
        self.pulses = {actor: pulses[actor] for actor in experts}
        of_experts = sorted({pulse.threads for pulse in self.pulses.values()})
        log.info(
            "threads: %d in the head, %s in each expert", pulses["head"].threads, " or ".join(map(str, of_experts))
        )
        self.ops = RayReplicas(handles["head"], experts, actors.start, config.cluster.namespace)
        self.ops.adopt(self.pulses)
        self.head = RemoteHead(
            handles["head"], self.ops.routes, config.experts.grace_s, config.head.hang_s, _BEGIN_SECONDS
        )

    def broken(self) -> str:
        """Which of Ray's own processes on this machine have ended, because nothing starts them anew, or which server
        leads instead of this one.
        """
        if self._leadership is not None and (successor := self._leadership.successor):
            return f"{successor} leads instead of this one"
        return daemon.broken(self._essentials)

    def close(self, keep: bool) -> None:
        if not (keep or (self._leadership is not None and self._leadership.is_awaited())):
            forget_wishes(self.memory)
            _let_go(["head", *self.ops.names()], self._config, self._local, self._leadership)
            return
        if self._leadership is not None:
            self._leadership.end()
        ray.shutdown()
        if self._local is not None:
            self._local.let_go()


def _connect(config: Config, local: LocalRay | None) -> None:
    address = config.cluster.ray_address if local is None else local.address
    auth = ray_auth()
    level, problem = auth.problem(address)
    if local is None and level == "warn":
        log.warning("%s: %s", problem, ADVICE)
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(address=address, namespace=config.cluster.namespace, log_to_driver=False, configure_logging=False)
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
        self.config, self._namespace = config, config.cluster.namespace
        self._head_spec, self._expert_specs = actor_specs(config, checkpoint)
        self.new: list[str] = []

    def start_all(self, stop: threading.Event) -> tuple[dict[Actor, Any], Readiness]:
        """Start what an earlier serve has not left; returns all handles, and which actors must be ready."""
        running = _running(self._namespace)
        reports = reports_of({name: handle for name in running if (handle := find_actor(name, self._namespace))})
        found = {actor: reports.get(name) for name, actor in running.items()}
        plan = plan_start(found, self._head_spec, self._expert_specs, self.config.experts.replicas)
        if stale := [name_of(actor) for actor in plan.replaced]:
            log.info("replacing %s: they hold another checkpoint, run other code or do not answer", ", ".join(stale))
            stop_actors(stale, self._namespace)
        self.new = [name_of(r) for r in plan.missing] + ([] if plan.head_kept else ["head"])
        handles: dict[Actor, Any] = {"head": self.start("head")[1]}
        nodes = self._nodes(plan, handles["head"], stop)
        handles |= {r: self.start(r, nodes.get(r, ""))[1] for r in [*plan.kept, *plan.missing]}
        return handles, Readiness(handles, plan.dispensable())

    def _nodes(self, plan: StartPlan, head: Any, stop: threading.Event) -> dict[ReplicaId, str]:
        """Nodes for new experts, once it is known what the head takes; none where there is no choice."""
        alive = [node for node in machines() if node.alive]
        if len(alive) < 2 or not plan.missing:
            return {}
        if needs_of(self.config.head):
            _wait_for_node(head, stop, self.config.cluster.start_timeout_s)
            alive = [node for node in machines() if node.alive]
        return plan.nodes(alive, needs_of(self.config.experts))

    def start(self, actor: Actor, node_id: str = "", avoided: Collection[str] = ()) -> tuple[str, Any]:
        """Begin to start an actor, or find it: its name and handle."""
        s = self.config.head if actor == "head" else self.config.experts
        spec = self._head_spec if actor == "head" else self._expert_specs[actor.expert]
        reserved = {"num_cpus": s.num_cpus, "num_gpus": s.num_gpus, "resources": dict(s.resources) or None}
        return name_of(actor), start_actor(name_of(actor), spec, reserved, self._namespace, node_id, avoided)


def _running(namespace: str) -> dict[str, Actor]:
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [entry["name"] for entry in named if entry["namespace"] == namespace]
    return {name: actor for name in names if (actor := _named(name))}


def _wait_for_node(head: Any, stop: threading.Event, timeout: float) -> None:
    end, ref = time.monotonic() + timeout, head.pulse.remote()
    while not ray.wait([ref], timeout=_POLL)[0]:
        if stop.is_set():
            raise LaunchStopped
        if time.monotonic() > end:
            raise LaunchFailed(f"no node took the head within {timeout:g} s (`ray status` shows what it waits for)")


def _wait_for_weights(
    readiness: Readiness,
    handles: Mapping[Actor, Any],
    leadership: Leadership | None,
    report: ProgressReport,
    stop: threading.Event,
    timeout: float,
) -> None:
    """Call all actors until all have their weights at the same time: one that had may have ended meanwhile."""
    end, known = time.monotonic() + timeout, memory_exits()
    while True:
        refs = {handles[actor].pulse.remote(): actor for actor in readiness.actors}
        done, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_POLL)
        pulses, lost, away = pulses_in((ref, refs[ref]) for ref in done)
        missed = readiness.note(pulses, lost, away, now=time.monotonic())
        full = [why for process, why in memory_exits().items() if process not in known] if lost or away else []
        if len(full) >= MOST_FAILURES:
            raise LaunchFailed(f"{len(full)} processes ended before all were ready: {full[-1]}")
        report("loading weights", {name_of(actor): p for actor, p in readiness.progress().items()})
        for actor, why in missed.items():
            raise LaunchFailed(f"{name_of(actor)} could not load: {why}")
        if leadership is not None and (successor := leadership.successor):
            raise LaunchFailed(f"{successor} leads instead of this one, which gave no sign for too long")
        if not (waiting := readiness.waiting):
            return
        if stop.wait(_POLL / 5):
            raise LaunchStopped
        if time.monotonic() > end:
            raise LaunchFailed(
                f"{', '.join(sorted(map(name_of, waiting)))} not ready after {timeout:g} s: does the cluster have the "
                "resources that head.* and experts.* ask for? (`ray status` shows pending actors)"
            )


def _let_go(names: list[str], config: Config, local: LocalRay | None, leadership: Leadership | None = None) -> None:
    """End these actors, or all of Ray if it is our own. Only then another server may lead."""
    if ray.is_initialized():
        if local is None:
            stop_actors(names, config.cluster.namespace)
        if leadership is not None:
            leadership.end()
        ray.shutdown()
    if local is not None:
        local.remove()


def down(config: Config) -> list[str]:
    """Remove this namespace's actors from `cluster.ray_address`; returns a line for each."""
    _connect(config, None)
    ours = list(_running(config.cluster.namespace))
    forget_wishes(RayMemory(config.cluster.namespace))
    _let_go(ours, config, None)
    return [f"removed actor {name}" for name in ours]
