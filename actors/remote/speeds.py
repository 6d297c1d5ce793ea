"""How fast the cluster's machines compute an expert's calls: measured once on each, and remembered by the cluster."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import psutil
import ray

from actors.remote.faults import OwnFaults
from actors.remote.places import only_on
from actors.seams import ClusterMemory
from actors.specs import ActorSpec
from actors.threads import cores, threads_for
from model.checkpoint.weights import torch_dtype
from model.config import MixtralConfig
from model.experts.speed import calls_per_second

log = logging.getLogger("eightwinds.actors")

_PREFIX = "speed/"
_PATIENCE, _LOOK = 12.0, 0.2  # seconds
_CALM = 0.5  # cores
_ATTEMPTS = 3


class Speeds:
    """Of machines by node, in calls a second with all their cores. A process of Ray's on a machine that nobody has
    measured does so, in a calm moment if there is one soon; the speed is known from then on, because a machine's load
    later is not to change its place among the others. A machine that cannot measure itself is asked three times.

    May be used from any thread.
    """

    def __init__(
        self, memory: ClusterMemory, spec: ActorSpec, model: MixtralConfig, needs: Mapping[str, float]
    ) -> None:
        """`spec` is that of any expert, which `needs` these resources of Ray's."""
        self._memory, self._spec, self._model, self._needs = memory, spec, model, needs
        self._prefix = f"{_PREFIX}{spec.digest}/{spec.dtype}/{spec.quantization}/"
        self._faults, self._lock = OwnFaults(), threading.Lock()
        self._known: Mapping[str, float] = {}  # replaced, never changed
        self._wanted: Collection[str] = ()
        self._asked: dict[Any, str] = {}
        self._failures = Counter[str]()

    def of(self, resources: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
        """The speeds of these nodes as far as they are known; the others are asked, unless they have in all less than
        an expert needs: those are somebody else's.
        """
        needs = self._needs.items()
        nodes = [node for node, has in resources.items() if all(has.get(name, 0.0) >= amount for name, amount in needs)]
        self._wanted = nodes
        if self._lock.acquire(blocking=False):  # else another thread is looking
            try:
                self._look(nodes)
            finally:
                self._lock.release()
        return {node_id: speed for node_id, speed in self._known.items() if node_id in nodes}

    def missing(self) -> bool:
        """Whether one of the nodes that were looked at last may yet say how fast it is."""
        return any(node not in self._known and self._failures[node] < _ATTEMPTS for node in self._wanted)

    def _look(self, nodes: Collection[str]) -> None:
        if not self._known:
            found = {key: self._memory.read(key) for key in self._memory.keys(self._prefix)}
            self._known = {key.removeprefix(self._prefix): float(value) for key, value in found.items() if value}
        for node_id in set(nodes) - self._known.keys() - set(self._asked.values()):
            if self._failures[node_id] < _ATTEMPTS:
                here: Any = _measure
                ref = here.options(scheduling_strategy=only_on(node_id)).remote(self._spec, self._model)
                self._asked[ref] = node_id
        if self._asked:
            refs = list(self._asked)
            for ref in ray.wait(refs, num_returns=len(refs), timeout=0)[0]:
                self._note(self._asked.pop(ref), ref)

    def _note(self, node_id: str, ref: Any) -> None:
        speed: float | None = self._faults.answer(ref, "a machine was asked for its speed")
        if not speed:
            self._failures[node_id] += 1
            return
        log.info("node %s computes %.0f calls of an expert's layer a second", node_id[:12], speed)
        self._known = {**self._known, node_id: speed}
        self._memory.write(f"{self._prefix}{node_id}", str(speed).encode())


def forget_speeds(memory: ClusterMemory) -> None:
    """Have all machines measured anew."""
    for key in memory.keys(_PREFIX):
        memory.forget(key)


@ray.remote(num_cpus=0, max_retries=0)
def _measure(spec: ActorSpec, model: MixtralConfig) -> float:
    _wait_for_calm()
    threads = threads_for(model.hidden_size, 1)
    return calls_per_second(model, spec.quantization, torch_dtype(spec.dtype), threads) * cores() / threads


def _wait_for_calm() -> None:
    """Until hardly a core of this machine computes, because other processes start at the same time; not for ever."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        time.sleep(random.uniform(0.0, 2 * _LOOK))  # so that hosts that share cores take turns
        if psutil.cpu_percent(_LOOK) / 100 * (psutil.cpu_count() or 1) < _CALM:
            return
