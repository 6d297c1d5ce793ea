"""How fast the cluster's machines compute an expert's calls: measured once on each, and remembered by the cluster."""

import logging
import random
import time
from collections.abc import Collection, Mapping
from typing import Any

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.remote.faults import OwnFaults
from actors.seams import ClusterMemory
from actors.specs import ActorSpec
from actors.threads import cores
from model.checkpoint.weights import torch_dtype
from model.config import MixtralConfig
from model.experts.speed import calls_per_second

log = logging.getLogger("eightwinds.actors")

_PATIENCE, _LOOK = 12.0, 0.2  # seconds
_CALM = 0.5  # cores


class Speeds:
    """Of machines by node, in calls a second with all their cores. A process of Ray's on a machine that nobody has
    measured does so, which takes it some seconds; the speed is known from then on. A machine's load does not change
    its place among the others later, because replicas are never moved.
    """

    def __init__(self, memory: ClusterMemory, spec: ActorSpec, model: MixtralConfig) -> None:
        """`spec` is that of any expert."""
        self._memory, self._spec, self._model = memory, spec, model
        self._prefix = f"speed/{spec.digest}/{spec.dtype}/{spec.quantization}/"
        self._faults = OwnFaults()
        self._known: dict[str, float] = {}
        self._asked: dict[Any, str] = {}

    def of(self, nodes: Collection[str], wait: float = 0.0) -> Mapping[str, float]:
        """The speeds of these nodes as far as they are known after `wait` seconds; who is not known is asked."""
        if not self._known:
            found = {key: self._memory.read(key) for key in self._memory.keys(self._prefix)}
            self._known = {key.removeprefix(self._prefix): float(value) for key, value in found.items() if value}
        for node_id in set(nodes) - self._known.keys() - set(self._asked.values()):
            here: Any = _measure
            strategy = NodeAffinitySchedulingStrategy(node_id, soft=False)
            self._asked[here.options(scheduling_strategy=strategy).remote(self._spec, self._model)] = node_id
        if self._asked:
            refs = list(self._asked)
            for ref in ray.wait(refs, num_returns=len(refs), timeout=wait)[0]:
                self._note(self._asked.pop(ref), ref)
        return {node_id: speed for node_id, speed in self._known.items() if node_id in nodes}

    def _note(self, node_id: str, ref: Any) -> None:
        """A machine that could not measure itself counts as one of average speed, and is not asked again."""
        speed: float | None = self._faults.answer(ref, "a machine was asked for its speed")
        self._known[node_id] = speed or 0.0
        if speed:
            log.info("node %s computes %.0f calls of an expert's layer a second", node_id[:12], speed)
            self._memory.write(f"{self._prefix}{node_id}", str(speed).encode())


@ray.remote(num_cpus=0, max_retries=0)
def _measure(spec: ActorSpec, model: MixtralConfig) -> float:
    _wait_for_calm()
    return calls_per_second(model, spec.quantization, torch_dtype(spec.dtype), spec.threads or cores())


def _wait_for_calm() -> None:
    """Until hardly a core of this machine computes, because other processes start at the same time; not for ever."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(random.uniform(0.0, 2 * _LOOK))  # so that hosts that share cores take turns
        if psutil.cpu_percent(_LOOK) / 100 * (psutil.cpu_count() or 1) < _CALM:
            return
