"""`eightwinds serve`: from configuration to the ready line, and from a signal back to nothing. It checks early what can
be wrong early, before any actor starts. Ray starts in a thread, so that a signal is heard at any moment.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from pathlib import Path

from actors.seams import HeadLost
from cluster.engine.generation import GenerationFailed
from cluster.engine.served_model import ServedModel
from cluster.launch.checks import check_exposure, check_machine, open_certificates, open_model
from cluster.launch.local_ray import daemon
from cluster.launch.local_ray.auth import choose_ray_auth
from cluster.launch.process.heap import trim_for_ever
from cluster.launch.process.progress import ProgressLines
from cluster.launch.process.shutdown import Shutdown
from cluster.launch.ray_runtime import RayRuntime
from cluster.launch.runtime import LaunchFailed, LaunchStopped, Runtime
from cluster.launch.server import Server
from cluster.launch.specs import held_bytes, scaling_policy
from cluster.policy.scheduling.limits import Limits
from cluster.settings.address import bind, split
from cluster.settings.certificates import Certificates
from cluster.settings.config import Config
from cluster.settings.tokens import TokenFile

log = logging.getLogger("eightwinds.serve")

_END_SECONDS = 8.0  # that ending may take, beyond what running requests get


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
    runtime: Runtime | None = None

    def force() -> None:
        if runtime is not None and not keep_actors:
            runtime.abandon()
        os._exit(1)

    shutdown = Shutdown(asyncio.get_running_loop(), config.gateway.grace_s + _END_SECONDS, force)
    shutdown.listen()
    tokens, certificates, http, served = _examined(config)
    runtime = _runtime(config, served)  # begins to start Ray, before gRPC's threads exist
    await asyncio.to_thread(runtime.await_turn, shutdown.stop, lambda: _ports_taken(config))
    http = http or _ports(config)
    trimming = asyncio.create_task(trim_for_ever())
    server = Server(config, served, runtime, tokens, certificates)
    try:
        grpc_address = await server.listen(http)
        await server.start(shutdown.stop)
        await server.warm_up()
        shutdown.hurry = server.generations.cut_off
        await server.open()
        _say_ready(config, served, server.engine.limits, grpc_address, http)
        await _until(shutdown.asked, server, config.head.grace_s + config.head.hang_s)
        return await _drain(server, config.gateway.grace_s, shutdown.asked)
    finally:
        trimming.cancel()
        await server.close(keep_actors)


def _examined(config: Config) -> tuple[TokenFile | None, Certificates | None, socket.socket | None, ServedModel]:
    """Look at everything that can be wrong early: tokens, certificates, ports and the model. ValueError or OSError. On
    a cluster another server may have the ports, and this one stand by.
    """
    check_exposure(config)
    scaling_policy(config)
    tokens = TokenFile(Path(config.security.token_file)) if config.security.token_file else None
    certificates = open_certificates(config)
    http = None if config.cluster.ray_address else _ports(config)  # kept: of two that start at once one ends here
    served = open_model(config)
    _check_machine(config, served)
    return tokens, certificates, http, served


def _ports(config: Config) -> socket.socket:
    """The HTTP port, once gRPC's is known to be free. OSError says which one is not."""
    bind(config.gateway.listen).close()
    return bind(config.gateway.http)


def _ports_taken(config: Config) -> str:
    """Why this process could not serve now, or ""."""
    try:
        _ports(config).close()
    except OSError as error:
        return str(error)
    return ""


def _check_machine(config: Config, served: ServedModel) -> None:
    left = [] if config.cluster.ray_address else daemon.left_behind(config.cluster.namespace)
    check_machine(config, held_bytes(config, served.checkpoint), taken_over=bool(left))


def _runtime(config: Config, served: ServedModel) -> Runtime:
    report = ProgressLines().report
    if config.runtime == "in_process":
        from cluster.launch.in_process import InProcess

        return InProcess(config, served.checkpoint, report)
    return RayRuntime(config, served.checkpoint, report)


def _say_ready(config: Config, served: ServedModel, limits: Limits, grpc_address: str, http: socket.socket) -> None:
    print(served.capacity(limits), file=sys.stderr, flush=True)
    http_address = f"{split(config.gateway.http)[0]}:{http.getsockname()[1]}"
    print(f"ready grpc={grpc_address} http={http_address} model={served.id} experts={config.experts.count}", flush=True)


async def _until(asked: asyncio.Event, server: Server, patience: float) -> None:
    """Until a signal comes, or a supervisor can do more than this process."""
    while not (why := server.beyond_help(patience)):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), 1.0)
            return
    log.error("this server ends: %s", why)


async def _drain(server: Server, grace: float, asked: asyncio.Event) -> int:
    """The exit code, once requests have ended: those of a server that ends by itself are cut off."""
    if asked.is_set():
        print("draining: running requests finish, new ones are refused", file=sys.stderr, flush=True)
    else:
        grace = 0.0
    if not await server.gateway.drain(grace):
        print(f"some requests were cut off after {grace:g} s", file=sys.stderr)
    return 0 if asked.is_set() else 1


def down(config: Config, caches: bool = False) -> int:
    """`eightwinds down`: remove what earlier serves left behind, and the `caches` of weights on a cluster."""
    try:
        if config.cluster.ray_address:
            choose_ray_auth()
            from cluster.launch.on_ray import joining

            lines = joining.down(config, caches)
        elif caches:
            raise ValueError("--cache is for the hosts of a cluster: give its --ray-address")
        else:
            lines = daemon.down(config.cluster.namespace)
    except (ValueError, OSError, LaunchFailed) as error:
        print(f"eightwinds down: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines) or "nothing to remove")
    return 0
