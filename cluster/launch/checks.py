"""Refusals before anything starts: of a configuration, a checkpoint, or a machine with too little memory or too few
open files. `doctor` and `serve` have the same words for it.
"""

import contextlib
import os
import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from cluster.engine.served_model import ServedModel
from cluster.policy.sizing import RAY_THRESHOLD
from cluster.settings.address import is_loopback
from cluster.settings.certificates import Certificates
from cluster.settings.config import Config, listed

ACTOR_BYTES = 350 << 20  # a Python process with torch and Ray, before its weights
_CGROUP = Path("/sys/fs/cgroup")
_PROCESS_FILES, _ACTOR_FILES = 128, 8  # with nine actors Ray's processes have 76 files open at most, `serve` 47


def open_model(config: Config) -> ServedModel:
    """The model to serve. ValueError if there is none, or the cluster is configured for another number of experts."""
    served = replace(ServedModel.open(config.model.path), aliases=listed(config.gateway.model_aliases))
    count = served.checkpoint.config.num_local_experts
    if count != config.experts.count:
        raise ValueError(
            f"the checkpoint has {count} experts, the cluster is configured for {config.experts.count}: "
            f"set experts.count={count}"
        )
    return served


def check_exposure(config: Config) -> None:
    """ValueError if other machines could send requests and nothing asks who they are, or anybody on the way can read
    them.
    """
    security = config.security
    open_to = [a for a in (config.gateway.listen, config.gateway.http) if not is_loopback(a)]
    dangers, wanted = list[str](), list[str]()
    if not security.token_file:
        dangers.append("anybody there could send requests")
        wanted.append("--token-file")
    if not security.certificate:
        dangers.append("anybody on the way could read them")
        wanted.append("--cert and --key")
    if open_to and wanted and not security.insecure:
        raise ValueError(
            f"{open_to[0]} can be reached from other machines, and {' and '.join(dangers)}: give "
            f"{' and '.join(wanted)}, listen on 127.0.0.1, or say --insecure if the network is yours"
        )


def open_certificates(config: Config) -> Certificates | None:
    """Certificate and key of both ports, None without TLS. ValueError if the files cannot be used."""
    security = config.security
    if not security.certificate:
        return None
    authority = Path(security.client_ca) if security.client_ca else None
    return Certificates(Path(security.certificate), Path(security.key), authority)


@dataclass(frozen=True, slots=True)
class Memory:
    """A machine's memory in bytes, and the share of it above which Ray ends processes."""

    total: int
    available: int
    threshold: float = RAY_THRESHOLD

    @property
    def room(self) -> int:
        """Bytes that may be allocated before Ray ends processes."""
        return max(0, self.available - round((1.0 - self.threshold) * self.total))

    def problem(self, needed: int, taken_over: bool = False) -> str:
        """Why `needed` bytes do not fit, or "". Bytes that are `taken_over` are in memory already, whatever is free."""
        if needed <= (self.threshold * self.total if taken_over else self.room):
            return ""
        return f"{needed / 1e9:.1f} GB needed here, {self.words()}"

    def words(self) -> str:
        return (
            f"{self.room / 1e9:.1f} GB free: {(self.total - self.available) / 1e9:.1f} of {self.total / 1e9:.1f} GB "
            f"are in use, and above {self.threshold:.0%} Ray ends processes"
        )

    def advice(self) -> str:
        """A remedy for a lack of it, for the operator."""
        if self.room > 0:
            return "lower kv.memory_bytes, use a smaller dtype, or join a cluster"
        return "end what uses the memory, join a cluster, or move Ray's threshold with RAY_memory_usage_threshold=0.98"


def memory(environ: Mapping[str, str], cgroup: Path = _CGROUP, ray: bool = True) -> Memory:
    """Memory of this machine, or of this container if that has less. Without `ray` there is no threshold."""
    found = psutil.virtual_memory()
    total, available = found.total, found.available
    with contextlib.suppress(OSError, ValueError):  # no limit, or no cgroups of version 2
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
        used = int((cgroup / "memory.current").read_text(encoding="ascii")) - int(stat.get("inactive_file", 0))
        if limit < total:
            total, available = limit, min(available, max(0, limit - used))
    if not ray or environ.get("RAY_memory_monitor_refresh_ms") == "0":
        return Memory(total, available, 1.0)
    with contextlib.suppress(ValueError):
        return Memory(total, available, float(environ.get("RAY_memory_usage_threshold", "")))
    return Memory(total, available)


def memory_needed(config: Config, weights: int) -> int:
    """Bytes that a start takes on this machine, `weights` included; 0 if actors are on other machines or on GPUs."""
    if config.cluster.ray_address or config.experts.num_gpus:
        return 0
    actors = 1 if config.runtime == "in_process" else 1 + config.experts.count * config.experts.replicas
    cache = 0 if config.head.num_gpus else config.kv.memory_bytes or 0  # a share follows what there is
    return weights + cache + actors * ACTOR_BYTES


def raise_open_files() -> int:
    """Raise the limit on open files as far as allowed, for this process and its children; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a system may allow less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def open_files_problem(limit: int, config: Config) -> str:
    """Why a limit of so many open files is too low, or ""."""
    needed = _PROCESS_FILES + _ACTOR_FILES * (1 + config.experts.count * config.experts.replicas)
    if config.runtime == "in_process" or limit >= needed:
        return ""
    return (
        f"{limit} open files are allowed, {needed} are needed: ulimit -n {max(needed, 4096)}, or LimitNOFILE= in a unit"
    )


def check_machine(config: Config, weights: int, taken_over: bool) -> None:
    """ValueError if memory or open files are too few. `taken_over` says that an earlier serve's actors are there."""
    if problem := open_files_problem(raise_open_files(), config):
        raise ValueError(problem)
    found = memory(os.environ, ray=config.runtime == "ray")
    if problem := found.problem(memory_needed(config, weights), taken_over):
        raise ValueError(f"{problem}: {found.advice()}")
