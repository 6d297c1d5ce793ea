"""Brings head and experts up on Ray, or adopts those that run already."""

import logging
import threading
from collections.abc import Mapping
from typing import Any

import ray

from actors.remote.actors import stop_actors
from actors.remote.head import RemoteHead
from actors.remote.memory import RayMemory
from actors.remote.replicas import RayReplicas
from actors.vitals import Pulse
from cluster.control.leadership import Leadership
from cluster.control.wishes import forget_wishes
from cluster.launch.local_ray import daemon
from cluster.launch.local_ray.record import LocalRay
from cluster.launch.on_ray.actors import Actors, name_of, wait_for_weights
from cluster.launch.on_ray.joining import connect, let_go
from cluster.launch.runtime import ProgressReport
from cluster.policy.replicas.start_plan import Actor
from cluster.settings.config import Config
from model.checkpoint.folder import Checkpoint

log = logging.getLogger("eightwinds.launch")

_BEGIN_SECONDS = 120.0  # for a head whose process has not answered yet


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
    actors = Actors(config, checkpoint)
    try:
        if local is not None:
            report("starting Ray", {})
            local = daemon.wait(local, stop, config.cluster.start_timeout_s)
            local.keep_fresh()
            connect(config, local)
        handles, readiness = actors.start_all(stop)
        try:
            wait_for_weights(readiness, handles, leadership, report, stop, config.cluster.start_timeout_s)
        finally:  # what failed is not to be found by the next launch, nor routed to by this one
            for actor, why in readiness.failed.items():
                log.warning("%s is ended: %s", name_of(actor), why)
            stop_actors(list(map(name_of, readiness.failed)), config.cluster.namespace)
    except BaseException:
        awaited = leadership is not None and leadership.is_awaited()
        let_go([] if awaited else actors.new, config, local, leadership)
        raise
    kept = {actor: handles[actor] for actor in readiness.actors}
    return RayDeployment(actors, local, leadership, kept, readiness.pulses)


class RayDeployment:
    """See `cluster.launch.runtime.Deployment`."""

    def __init__(
        self,
        actors: Actors,
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
        self.ops = RayReplicas(handles["head"], experts, actors.start, config.cluster.namespace, actors.speeds)
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
            let_go(["head", *self.ops.names()], self._config, self._local, self._leadership)
            return
        if self._leadership is not None:
            self._leadership.end()
        ray.shutdown()
        if self._local is not None:
            self._local.let_go()
