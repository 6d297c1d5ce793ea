"""Actors that do what experts do, except to compute, on a Ray of their own.

Ray is imported late: whoever lists the steps must not need it.
"""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from actors.replica import Replica
from actors.transport.rows import HEADER_BYTES, Message, RowsHeader, decode_header, encode_rows
from actors.transport.seam import ExpertCall, encode_call
from benchmarks.gpu.bench import Bench
from model.device.host_link import host_link
from model.wire import tensor_bytes, tensor_from

_GPU_SHARE = 0.08  # of the card for each actor, as Ray counts it
_NAMESPACE = "eightwinds"  # so that `eightwinds down` removes the Ray of a step that was killed
_STARTING = 60.0  # seconds at most, for Ray and for the actors


class Echo:
    """`actors.expert.Expert.forward` without the computation: rows go to the device and come back."""

    def __init__(self, device: str) -> None:
        torch.set_num_threads(1)
        self._link = host_link(device)

    def forward(self, message: Message) -> Message:
        """The same rows, which have been on the device."""
        h = decode_header(message)
        rows_RD = tensor_from(message, HEADER_BYTES, h.rows, h.columns, h.dtype_code)
        started = time.perf_counter_ns()
        (answer_RD,) = self._link.download(self._link.upload([rows_RD]))
        took = time.perf_counter_ns() - started
        return encode_rows(RowsHeader(h.dtype_code, h.layer, h.rows, h.columns, took), tensor_bytes(answer_RD))


@contextmanager
def own_ray(bench: Bench, cpus: int) -> Iterator[None]:
    """A Ray of our own as `serve` starts it; nothing of it outlives the block."""
    from cluster.launch.local_ray import daemon

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    with _state_folder():
        local = daemon.prepare(_NAMESPACE, "", cpus=cpus)
        assert local is not None
        import ray  # in the environment that `prepare` has made

        try:
            local = daemon.wait(local, threading.Event(), min(_STARTING, bench.left()))
            ray.init(address=local.address, log_to_driver=False, logging_level=logging.ERROR)
            yield
        finally:
            ray.shutdown()
            local.remove()


@contextmanager
def _state_folder() -> Iterator[None]:
    """A folder of this block's own for the record of a local Ray, unless whoever started us has named one."""
    if os.environ.get("EIGHTWINDS_STATE"):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="ewg-", ignore_cleanup_errors=True) as state:
        os.environ["EIGHTWINDS_STATE"] = state
        try:
            yield
        finally:
            del os.environ["EIGHTWINDS_STATE"]


@contextmanager
def echoes(bench: Bench, count: int) -> Iterator[list[Any]]:
    """The bound methods of the actors, each of which has used the device already; made as actors/remote makes
    real ones.
    """
    import ray

    class EchoActor:
        def __init__(self, device: str) -> None:
            self._echo = Echo(device)

        @ray.method(concurrency_group="work")
        def forward(self, message: Message) -> Message:
            return self._echo.forward(message)

    share = _GPU_SHARE if bench.device.type == "cuda" else 0.0
    if share and _gpus() < count * share:
        bench.findings.note("Ray sees no GPU here: the actors reserve none, and find it themselves")
        share = 0.0
    decorate: Any = ray.remote(concurrency_groups={"work": 1, "control": 2})  # type: ignore[call-overload]
    remote = decorate(EchoActor).options(num_cpus=0, num_gpus=share, max_restarts=0, max_task_retries=0)
    actors = [remote.remote(bench.device.type) for _ in range(count)]
    probe = encode_call(ExpertCall(-1, 0, Replica(0, 0), torch.ones(4, 8)))
    ray.get([actor.forward.remote(probe) for actor in actors], timeout=max(1.0, min(_STARTING, bench.left() - 3.0)))
    yield [actor.forward for actor in actors]
    for actor in actors:
        ray.kill(actor)


def _gpus() -> float:
    import ray

    resources: Any = ray.cluster_resources  # untyped in Ray
    return float(resources().get("GPU", 0.0))
