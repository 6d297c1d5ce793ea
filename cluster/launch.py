"""Brings head and experts up on Ray, or adopts those that run already. The only module here that imports Ray."""

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray

from actors.messages import ActorOptions, ActorSpec
from actors.remote import RemoteHead, find_actor, progress_of, report_of, start_actor, stop_actors
from cluster import local_ray
from cluster.config import ActorSection, Config
from cluster.deployment import Deployment, LaunchFailed, LaunchStopped, ProgressReport, actor_specs
from cluster.local_ray import LocalRay
from model.batch import LoadProgress
from model.checkpoint import Checkpoint

log = logging.getLogger("eightwinds.launch")

_POLL = 0.25
HEAD_NAME = "head"


def expert_name(expert: int, replica: int) -> str:
    """The Ray name of an expert's replica."""
    return f"expert-{expert}-{replica}"


def launch(
    config: Config,
    checkpoint: Checkpoint,
    local: LocalRay | None,
    report: ProgressReport,
    stop: threading.Event,
) -> Deployment:
    """Start or adopt all actors and wait for their weights; raises LaunchFailed or LaunchStopped, and then leaves
    nothing new behind. `local` is the Ray that `local_ray.prepare` began to start, None to join
    `cluster.ray_address`.
    """
    names: list[str] = []
    try:
        if local is not None:
            report("starting Ray", {})
            local = local_ray.wait(local, stop, config.cluster.start_timeout_s)
        _connect(config, local)
        handles, names = _start_actors(config, checkpoint)
        _wait_for_weights(handles, report, stop, config.cluster.start_timeout_s)
    except BaseException:
        _let_go(names, config, local)
        raise
    experts = {(e, 0): handles[expert_name(e, 0)] for e in range(checkpoint.config.num_local_experts)}
    head = RemoteHead(handles[HEAD_NAME], experts, config.experts.grace_s)

    def close(keep: bool) -> None:
        if keep:
            ray.shutdown()
        else:
            _let_go(list(handles), config, local)

    return Deployment(head, close)


def _connect(config: Config, local: LocalRay | None) -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    address = config.cluster.ray_address if local is None else local.address
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        ray.init(
            address=address,
            namespace=config.cluster.namespace,
            log_to_driver=False,
            configure_logging=False,
        )
    except Exception as error:  # Ray raises ConnectionError, RuntimeError, ValueError and its own
        raise LaunchFailed(f"cannot join Ray at {address}: {error}") from None


def _start_actors(config: Config, checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """Handles by name, and the names of those that did not run before."""
    head_spec, expert_specs = actor_specs(config, checkpoint)
    wanted: dict[str, tuple[ActorSpec, ActorSection]] = {HEAD_NAME: (head_spec, config.head)}
    wanted |= {expert_name(spec.expert or 0, 0): (spec, config.experts) for spec in expert_specs}
    namespace = config.cluster.namespace
    stale = [name for name, (spec, _) in wanted.items() if _is_other(name, spec, namespace)]
    if stale:
        log.info("replacing %s: they hold another checkpoint or run other code", ", ".join(stale))
        stop_actors(stale, namespace)
    new = [name for name in wanted if find_actor(name, namespace) is None]
    handles = {name: start_actor(name, spec, _options(at), namespace) for name, (spec, at) in wanted.items()}
    return handles, new


def _is_other(name: str, spec: ActorSpec, namespace: str) -> bool:
    handle = find_actor(name, namespace)
    if handle is None:
        return False
    try:
        return report_of(handle).spec != spec
    except ray.exceptions.RayError:
        return True  # it does not answer, so it cannot be adopted


def _options(section: ActorSection) -> ActorOptions:
    return ActorOptions(section.num_cpus, section.num_gpus, section.resources)


def _wait_for_weights(
    handles: Mapping[str, Any], report: ProgressReport, stop: threading.Event, timeout: float
) -> None:
    end = time.monotonic() + timeout
    progress: dict[str, LoadProgress] = {name: LoadProgress(0, 0) for name in handles}
    while True:
        waiting = {name: handle for name, handle in handles.items() if not progress[name].ready}
        if not waiting:
            return
        progress.update(progress_of(waiting, _POLL))
        report("loading weights", progress)
        for name, p in progress.items():
            if p.error:
                raise LaunchFailed(f"{name} could not load: {p.error}")
        if stop.is_set():
            raise LaunchStopped
        if time.monotonic() > end:
            missing = ", ".join(sorted(waiting))
            raise LaunchFailed(
                f"{missing} not ready after {timeout:g} s: does the cluster have the resources that "
                "head.* and experts.* ask for? (`ray status` shows pending actors)"
            )
        time.sleep(_POLL / 5)


def _let_go(names: list[str], config: Config, local: LocalRay | None) -> None:
    """End these actors, or with a Ray of our own all of it."""
    if local is None:
        if ray.is_initialized():
            stop_actors(names, config.cluster.namespace)
            ray.shutdown()
        return
    if ray.is_initialized():
        ray.shutdown()
    local.remove()


def down(config: Config) -> list[str]:
    """Remove this namespace's actors from `cluster.ray_address`; answers what was removed, a line each."""
    _connect(config, None)
    namespace = config.cluster.namespace
    named = ray.util.list_named_actors(all_namespaces=True)
    names = [entry["name"] for entry in named if entry["namespace"] == namespace]
    ours = [name for name in names if name == HEAD_NAME or name.startswith("expert-")]
    stop_actors(ours, namespace)
    ray.shutdown()
    return [f"removed actor {name}" for name in ours]
