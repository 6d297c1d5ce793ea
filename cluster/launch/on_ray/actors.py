"""The actors of a configuration: which run, where the others start, and when all have their weights."""

import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import ray

from actors.remote.actors import find_actor, pulses_in, reports_of, start_actor, stop_actors
from actors.remote.exits import memory_exits
from actors.remote.machines import machines
from actors.remote.memory import RayMemory
from actors.remote.pull import say_where
from actors.remote.speeds import Speeds
from actors.replica import ReplicaId
from cluster.control.leadership import Leadership
from cluster.launch.runtime import LaunchFailed, LaunchStopped, ProgressReport
from cluster.launch.specs import actor_specs, needs
from cluster.policy.replicas.lifecycle import MOST_FAILURES
from cluster.policy.replicas.readiness import Readiness
from cluster.policy.replicas.start_plan import Actor, StartPlan, plan_start
from cluster.settings.config import Config
from model.checkpoint.folder import Checkpoint

log = logging.getLogger("eightwinds.launch")

_POLL = 0.25
_SPEED_SECONDS = 30.0  # for the machines to measure themselves
_OPTIONS = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}  # Ray's own resources by its options
_EXPERT = re.compile(r"expert-(\d+)-(\d+)")


def name_of(actor: Actor) -> str:
    return "head" if actor == "head" else f"expert-{actor.expert}-{actor.index}"


def _named(name: str) -> Actor | None:
    """The actor that has this name; None if it is none of ours."""
    found = _EXPERT.fullmatch(name)
    return ReplicaId(int(found[1]), int(found[2])) if found else "head" if name == "head" else None


class Actors:
    """Starts and finds actors of a configuration. `new` are the names of those that did not run before."""

    def __init__(self, config: Config, checkpoint: Checkpoint) -> None:
        self.config, self._namespace = config, config.cluster.namespace
        self._model = checkpoint.config
        self._head_spec, self._expert_specs = actor_specs(config, checkpoint)
        self._head_needs, self._expert_needs = needs(config, checkpoint)
        self.new: list[str] = []
        self.speeds: Speeds | None = None  # of CPUs; a local Ray has one machine

    def start_all(self, stop: threading.Event) -> tuple[dict[Actor, Any], Readiness]:
        """Start what an earlier serve has not left; returns all handles, and which actors must be ready."""
        if self.config.cluster.ray_address and not self.config.experts.num_gpus:
            self.speeds = Speeds(RayMemory(self._namespace), self._expert_specs[0], self._model, self._expert_needs)
        running = running_actors(self._namespace)
        reports = reports_of({name: handle for name in running if (handle := find_actor(name, self._namespace))})
        found = {actor: reports.get(name) for name, actor in running.items()}
        if self.config.model.pull:
            say_where(RayMemory(self._namespace))
        plan = plan_start(found, self._head_spec, self._expert_specs, self.config.experts.replicas)
        if stale := [name_of(actor) for actor in plan.replaced]:
            log.info("replacing %s: they hold another checkpoint, run other code or do not answer", ", ".join(stale))
            stop_actors(stale, self._namespace)
        self.new = [name_of(r) for r in plan.missing] + ([] if plan.head_kept else ["head"])
        handles: dict[Actor, Any] = {"head": self.start("head")[1]}
        nodes = self._nodes(plan, handles["head"], stop)
        beside = Counter([*plan.kept.values(), *nodes.values()])  # experts of each node
        for replica_id in [*plan.kept, *plan.missing]:
            node_id = nodes.get(replica_id, "")
            handles[replica_id] = self.start(replica_id, node_id, beside=beside[node_id] if node_id else 0)[1]
        return handles, Readiness(handles, plan.dispensable())

    def _nodes(self, plan: StartPlan, head: Any, stop: threading.Event) -> dict[ReplicaId, str]:
        """Nodes for new experts, once it is known what the head takes and how fast each is; none without a choice."""
        if not plan.missing or sum(node.alive for node in machines(self.speeds)) < 2:
            return {}
        _wait_for_node(head, stop, self.config.cluster.start_timeout_s)
        end, found = time.monotonic() + _SPEED_SECONDS, machines(self.speeds)
        while self.speeds is not None and self.speeds.missing() and time.monotonic() < end:
            if stop.wait(_POLL):
                raise LaunchStopped
            found = machines(self.speeds)
        return plan.nodes([node for node in found if node.alive], self._expert_needs)

    def start(self, actor: Actor, node_id: str = "", avoided: Collection[str] = (), beside: int = 0) -> tuple[str, Any]:
        """Begin to start an actor, or find it: its name and handle."""
        amounts = dict(self._head_needs if actor == "head" else self._expert_needs)
        spec = self._head_spec if actor == "head" else self._expert_specs[actor.expert]
        reserved = {name: amounts.pop(key, 0) for name, key in _OPTIONS.items()} | {"resources": amounts or None}
        name, namespace = name_of(actor), self._namespace
        return name, start_actor(name, spec, reserved, namespace, node_id, avoided, beside)


def running_actors(namespace: str) -> dict[str, Actor]:
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


def wait_for_weights(
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
