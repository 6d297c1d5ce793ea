"""`eightwinds serve`: from configuration to the ready line, and from a signal back to nothing.

Ports are checked first and the checkpoint's headers read before any actor starts, so that what can be wrong early is
said early. Ray starts in a thread, so that a signal is heard at any moment.
"""

import asyncio
import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actors.replica import ReplicaId
from actors.seams import ClusterOps, HeadLost
from actors.vitals import Pulse
from cluster.control.autoscaler import Autoscaler
from cluster.control.controller import Controller
from cluster.engine.engine import Engine, EngineConfig
from cluster.engine.generation import GenerationFailed, GenerationRequest, Generations
from cluster.engine.served_model import ServedModel
from cluster.engine.text import StopRules
from cluster.gateway.health import Health, obstacle
from cluster.gateway.rpc.server import Gateway
from cluster.gateway.web.metrics import Look, exposition
from cluster.gateway.web.server import HttpServer, application
from cluster.launch.deployment import (
    Deployment,
    LaunchFailed,
    LaunchStopped,
    actor_specs,
    check_exposure,
    check_fits,
    needs_of,
)
from cluster.launch.heap import trim_for_ever
from cluster.launch.local_ray.auth import choose_ray_auth
from cluster.launch.machine import check_machine
from cluster.launch.progress import ProgressLines
from cluster.launch.shutdown import Shutdown
from cluster.policy.replicas.lifecycle import ReplicaOptions
from cluster.policy.replicas.membership import Membership
from cluster.policy.replicas.scaling import ScalingPolicy
from cluster.settings.address import bind, split
from cluster.settings.config import Config
from cluster.settings.tokens import TokenFile
from model.batch import SamplingParams

log = logging.getLogger("eightwinds.serve")

_END_SECONDS = 8.0  # that ending may take, beyond what running requests get


@dataclass(frozen=True, slots=True)
class Launcher:
    """A start under way: `launch` waits for it, `abandon` undoes it if `launch` never came to run."""

    launch: Callable[[threading.Event], Deployment]
    abandon: Callable[[], None]


def serve(config: Config, keep_actors: bool = False) -> int:
    """Run a server until SIGINT, SIGTERM or SIGHUP; returns the exit code."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("eightwinds").setLevel(logging.INFO)
    try:
        return asyncio.run(_serve(config, keep_actors))
    except (ValueError, OSError, LaunchFailed, HeadLost) as error:
        print(f"eightwinds serve: {error}", file=sys.stderr)
    except GenerationFailed:
        print("eightwinds serve: the warm-up request failed; the log above says why", file=sys.stderr)
    except LaunchStopped:
        return 0
    return 1


async def _serve(config: Config, keep_actors: bool) -> int:
    loop = asyncio.get_running_loop()
    launcher: Launcher | None = None

    def force() -> None:
        if launcher is not None and not keep_actors:
            launcher.abandon()
        os._exit(1)

    shutdown = Shutdown(loop, config.gateway.grace_s + _END_SECONDS, force)
    shutdown.listen()
    check_exposure(config)
    policy_of(config)
    tokens = TokenFile(Path(config.security.token_file)) if config.security.token_file else None
    bind(config.gateway.listen).close()
    http_socket = bind(config.gateway.http)  # kept, so that of two that start at once one ends here
    served = ServedModel.open(config.model.path)
    check_fits(config, served.checkpoint)
    _check_machine(config, served)
    launcher = _launcher(config, served)  # begins to start Ray, before gRPC's threads exist

    trimming = asyncio.create_task(trim_for_ever())
    gateway = Gateway(served, config.gateway.max_message_bytes, tokens, config.limits)
    page = application(lambda: gateway.backend.ready, lambda: _metrics(gateway, config.transport))
    http = HttpServer(page, config.limits, gateway.refusals)
    deployment: Deployment | None = None
    try:
        grpc_address = await gateway.listen(config.gateway.listen)
        await http.start(http_socket)
        deployment = await asyncio.to_thread(launcher.launch, shutdown.stop)
        generations = Generations(served.tokenizer, loop, config.gateway.max_buffered_tokens)
        bounds = engine_config(config, served.checkpoint.config.sliding_window)
        engine = await asyncio.to_thread(Engine, deployment.head, bounds, generations.sink)
        await _warm_up(served, generations, engine)
        shutdown.hurry = generations.cut_off
        backend = gateway.backend
        backend.generations, backend.engine, backend.started = generations, engine, loop.time()
        backend.device = "cuda" if config.experts.num_gpus else "cpu"
        if deployment.ops is not None:
            backend.controller = controller_of(config, deployment.ops, deployment.pulses)
            backend.autoscaler = Autoscaler(backend.controller, policy_of(config))
            backend.controller.start()
            backend.autoscaler.start()
        look = functools.partial(obstacle, engine, backend.controller, deployment.broken)
        backend.health = Health(look, lambda good: loop.call_soon_threadsafe(gateway.tell, good))
        backend.health.start()
        await gateway.serve()
        print(served.capacity(engine.limits), file=sys.stderr, flush=True)
        http_host, _ = split(config.gateway.http)
        print(
            f"ready grpc={grpc_address} http={http_host}:{http_socket.getsockname()[1]} model={served.id} "
            f"experts={served.checkpoint.config.num_local_experts}",
            flush=True,
        )
        await _until(shutdown.asked, engine, backend.health, config.head.grace_s + config.head.hang_s)
        if shutdown.asked.is_set():
            print("draining: running requests finish, new ones are refused", file=sys.stderr, flush=True)
        grace = config.gateway.grace_s if shutdown.asked.is_set() else 0.0
        if not await gateway.drain(grace):
            print(f"some requests were cut off after {grace:g} s", file=sys.stderr)
        await asyncio.to_thread(engine.stop)
        return 0 if shutdown.asked.is_set() else 1
    finally:
        trimming.cancel()
        await gateway.drain(0)
        await http.stop()
        for thread in (gateway.backend.health, gateway.backend.autoscaler, gateway.backend.controller):
            if thread is not None:
                await asyncio.to_thread(thread.stop)
        if deployment is None:
            await asyncio.to_thread(launcher.abandon)
        else:
            await asyncio.to_thread(deployment.close, keep_actors)


def _launcher(config: Config, served: ServedModel) -> Launcher:
    report = ProgressLines().report
    if config.transport == "local":
        from cluster.launch import in_process

        return Launcher(lambda stop: in_process.launch(config, served.checkpoint, report, stop), lambda: None)
    from cluster.launch.local_ray import daemon

    # Ray's own handler turns SIGTERM into an abort after 3 s; the variable is read when Ray is imported.
    os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
    local = daemon.prepare(config.cluster.namespace, config.cluster.ray_address, 1 + config.experts.count)

    def launch_on_ray(stop: threading.Event) -> Deployment:
        from cluster.launch import on_ray  # imports Ray, while Ray itself starts

        return on_ray.launch(config, served.checkpoint, local, report, stop)

    return Launcher(launch_on_ray, lambda: local.remove() if local is not None else None)


def _check_machine(config: Config, served: ServedModel) -> None:
    from cluster.launch.local_ray import daemon

    left = [] if config.cluster.ray_address else daemon.left_behind(config.cluster.namespace)
    head, _ = actor_specs(config, served.checkpoint)
    check_machine(config, served.checkpoint.held_bytes(head.dtype), bool(left))


def engine_config(config: Config, window: int | None) -> EngineConfig:
    """The engine's bounds for a model with this sliding window."""
    return EngineConfig(
        max_running=config.scheduler.max_running_requests,
        max_tokens_per_step=config.scheduler.max_tokens_per_step,
        max_queued=config.gateway.max_queued_requests,
        max_queued_tokens=config.gateway.max_queued_tokens,
        window=window,
        head_grace=config.head.grace_s,
        prefill_slowdown=config.scheduler.prefill_slowdown,
        prefix_caching=config.kv.prefix_caching,
        prefixes_by_tenant=config.kv.prefix_sharing == "tenant",
        static_batching=config.scheduler.batching == "static",
    )


async def _metrics(gateway: Gateway, transport: str) -> bytes:
    """What is counted now; nothing while the server starts."""
    b = gateway.backend
    if b.engine is None or b.generations is None:
        return b""
    head = await asyncio.to_thread(b.controller.load) if b.controller else None
    snapshot = await asyncio.to_thread(b.controller.snapshot) if b.controller else None
    counts = dict(gateway.handled), snapshot, head, transport, dict(gateway.refusals.counts)
    return exposition(Look(b.engine, b.generations.stats, *counts))


def policy_of(config: Config) -> ScalingPolicy:
    """The policy that a server begins with; ValueError names what is wrong with it."""
    s = config.scaling
    policy = ScalingPolicy(
        s.enabled,
        s.min_replica_count,
        s.max_replica_count,
        s.max_total_replica_count,
        s.scale_up_utilization,
        s.scale_down_utilization,
        s.cooldown_s,
    )
    if s.enabled and (problems := policy.problems(config.experts.count)):
        raise ValueError("; ".join(f"scaling.{field}: {why}" for field, why in problems))
    return policy


def controller_of(config: Config, ops: ClusterOps, pulses: Mapping[ReplicaId, Pulse]) -> Controller:
    """A controller of the replicas that run; those that an earlier serve has added are wanted still."""
    running = [sum(replica_id.expert == e for replica_id in pulses) for e in range(config.experts.count)]
    options = ReplicaOptions(
        placement_timeout=config.scaling.placement_timeout_s,
        start_timeout=config.cluster.start_timeout_s,
        needs=needs_of(config.experts),
    )
    membership = Membership([max(config.experts.replicas, count) for count in running], options)
    membership.adopt(pulses, time.monotonic())
    return Controller(ops, membership)


async def _warm_up(served: ServedModel, generations: Generations, engine: Engine) -> None:
    """One request through everything, so that the first client does not pay for lazy initialisation."""
    request = GenerationRequest(
        "warm-up",
        tuple(served.tokenizer.encode("warm up")),
        SamplingParams(temperature=0.0),
        max_tokens=2,
        stop_ids=frozenset(),
        rules=StopRules(),
    )
    with generations.running(request, engine) as generation:
        async for _ in generation.pieces():
            pass


async def _until(stopped: asyncio.Event, engine: Engine, health: Health, patience: float) -> None:
    """Until a signal comes, the engine has ended by itself, or no request has got through for so many seconds: then a
    supervisor can do more than this process.
    """
    while engine.alive and health.lasting_seconds < patience:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), 1.0)
            return
    log.error("this server ends: %s", health.why or "the engine has ended")


def down(config: Config) -> int:
    """`eightwinds down`: remove what earlier serves left behind."""
    from cluster.launch.local_ray import daemon

    try:
        if config.cluster.ray_address:
            choose_ray_auth()
            from cluster.launch import on_ray

            lines = on_ray.down(config)
        else:
            lines = daemon.down(config.cluster.namespace)
    except (ValueError, OSError, LaunchFailed) as error:
        print(f"eightwinds down: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines) or "nothing to remove")
    return 0
