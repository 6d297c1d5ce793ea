"""Joining Ray, leading there, and letting go of it."""

import logging
import os
import platform
import threading
from collections.abc import Callable
from typing import Any

import ray

from actors.remote.actors import stop_actors
from actors.remote.caches import empty_caches
from actors.remote.memory import RayMemory
from actors.remote.speeds import forget_speeds
from cluster.control.leadership import CannotLead, Leadership
from cluster.control.wishes import forget_wishes
from cluster.launch.local_ray.auth import ADVICE, answers, ray_auth
from cluster.launch.local_ray.record import LocalRay
from cluster.launch.on_ray.actors import running_actors
from cluster.launch.runtime import LaunchFailed, LaunchStopped
from cluster.settings.config import Config

log = logging.getLogger("eightwinds.launch")


def lead(config: Config, stop: threading.Event, obstacle: Callable[[], str]) -> Leadership:
    """Join `cluster.ray_address`, and return when this process leads; raises LaunchFailed or LaunchStopped."""
    connect(config, None)
    leadership = Leadership(RayMemory(config.cluster.namespace), f"serve on {platform.node()}, process {os.getpid()}")
    try:
        if not leadership.wait(stop, obstacle):
            raise LaunchStopped
    except CannotLead as error:
        raise LaunchFailed(str(error)) from None
    return leadership


def connect(config: Config, local: LocalRay | None) -> None:
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


def let_go(names: list[str], config: Config, local: LocalRay | None, leadership: Leadership | None = None) -> None:
    """End these actors, or all of Ray if it is our own. Only then another server may lead."""
    if ray.is_initialized():
        if local is None:
            stop_actors(names, config.cluster.namespace)
        if leadership is not None:
            leadership.end()
        ray.shutdown()
    if local is not None:
        local.remove()


def down(config: Config, caches: bool) -> list[str]:
    """Remove this namespace's actors from `cluster.ray_address`, and the `caches` of weights; a line for each."""
    connect(config, None)
    ours = list(running_actors(config.cluster.namespace))
    memory = RayMemory(config.cluster.namespace)
    forget_wishes(memory)
    forget_speeds(memory)
    stop_actors(ours, config.cluster.namespace)
    emptied = empty_caches(config.model.cache) if caches else []
    ray.shutdown()
    return [f"removed actor {name}" for name in ours] + emptied
