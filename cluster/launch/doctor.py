"""`eightwinds doctor`: looks at everything a start depends on and says what to do about each problem."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.engine.served_model import ServedModel
from cluster.launch.checks import check_exposure, check_fits
from cluster.launch.local_ray import daemon
from cluster.launch.local_ray.auth import ADVICE, ray_auth
from cluster.launch.machine import memory, memory_needed, open_files_problem, raise_open_files
from cluster.launch.specs import actor_specs
from cluster.settings.address import bind
from cluster.settings.config import Config, load_config
from cluster.settings.tokens import TokenFile

_PACKAGES = ("ray", "torch", "grpcio", "grpcio-health-checking", "grpcio-reflection", "sentencepiece", "safetensors")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: level (`ok`, `warn` or `fail`), what was found, and what to do about it."""

    level: str
    subject: str
    text: str
    advice: str = ""


def run(file: Path | None, settings: list[str]) -> int:
    """Print all findings; 0 if nothing failed."""
    findings = list(examine(file, settings))
    for f in findings:
        print(f"{f.level:4}  {f.subject:13}  {f.text}")
        if f.advice:
            print(f"      {'':13}  -> {f.advice}")
    failed = sum(f.level == "fail" for f in findings)
    print("ready to serve" if not failed else f"{failed} problem(s) to mend before serving")
    return 1 if failed else 0


def examine(file: Path | None, settings: list[str]) -> Iterator[Finding]:
    """Run all checks, in the order of a start."""
    yield _python()
    yield from (_package(name) for name in _PACKAGES)
    try:
        config = load_config(file, os.environ, settings)
    except ValueError as error:
        yield Finding("fail", "configuration", str(error), "mend the key; docs/operations.md lists all")
        return
    yield Finding("ok", "configuration", "valid")
    yield from _gpu(config)
    yield from _ports(config)
    yield _exposure(config)
    if config.cluster.ray_address:
        level, text = ray_auth().problem(config.cluster.ray_address)
        yield Finding(level, "ray", text, "" if level == "ok" else ADVICE)
    yield _shared_memory()
    yield _open_files(config)
    yield from _leftovers(config)
    yield from _checkpoint(config)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("ok", "python", f"{version}, {os.cpu_count()} CPUs")


def _package(name: str) -> Finding:
    try:
        return Finding("ok", "package", f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        return Finding("fail", "package", f"{name} is missing", "pip install -c constraints.txt -e .")


def _gpu(config: Config) -> Iterator[Finding]:
    wanted = config.head.num_gpus + config.experts.num_gpus * config.experts.count
    present = shutil.which("nvidia-smi") is not None
    if not wanted:
        hint = "set head.num_gpus and experts.num_gpus to use it" if present else ""
        yield Finding("ok", "gpu", "present, not asked for" if present else "none, none asked for", hint)
    elif not present and not config.cluster.ray_address:
        yield Finding("fail", "gpu", f"{wanted:g} asked for, none here", "set head.num_gpus=0 and experts.num_gpus=0")
    elif importlib.util.find_spec("flash_attn") is None:
        yield Finding("warn", "gpu", "flash-attn is not installed", "pip install 'eightwinds[gpu]', else SDPA is used")
    else:
        yield Finding("ok", "gpu", f"{wanted:g} asked for")


def _ports(config: Config) -> Iterator[Finding]:
    for key, address in (("listen", config.gateway.listen), ("http", config.gateway.http)):
        try:
            bind(address).close()
            yield Finding("ok", "port", f"{address} is free")
        except OSError as error:
            yield Finding("fail", "port", str(error), f"stop what listens there, or set gateway.{key}")


def _exposure(config: Config) -> Finding:
    try:
        check_exposure(config)
        if not config.security.token_file:
            return Finding("ok", "tokens", "none asked for: whoever reaches the ports may send requests")
        TokenFile(Path(config.security.token_file))
        return Finding("ok", "tokens", f"asked for, by {config.security.token_file}")
    except ValueError as error:
        return Finding("fail", "tokens", str(error), "eightwinds token NAME --file FILE makes a token and its file")


def _shared_memory() -> Finding:
    path = Path("/dev/shm")
    free = shutil.disk_usage(path).free if path.exists() else 0
    if free < 300 << 20:
        return Finding(
            "fail", "shared memory", f"{free >> 20} MiB in /dev/shm", "give it 300 MiB (docker: --shm-size=1g)"
        )
    return Finding("ok", "shared memory", f"{free >> 20} MiB free in /dev/shm")


def _leftovers(config: Config) -> Iterator[Finding]:
    try:
        left = daemon.left_behind(config.cluster.namespace)
    except (ValueError, OSError) as error:
        yield Finding("fail", "leftovers", str(error), "nothing there is read or removed, whoever made it")
        return
    if left:
        advice = "the next serve takes over what is recorded, and ends the rest; eightwinds down removes it"
        yield from (Finding("warn", "leftovers", text, advice) for text in left)
    else:
        yield Finding("ok", "leftovers", "none")


def _checkpoint(config: Config) -> Iterator[Finding]:
    def opened() -> ServedModel:
        served = ServedModel.open(config.model.path)
        check_fits(config, served.checkpoint)
        return served

    try:
        served = opened()
    except ValueError as error:
        yield Finding("fail", "checkpoint", str(error), "set model.path to a Mixtral checkpoint in HF layout")
        return
    checkpoint = served.checkpoint
    head, _ = actor_specs(config, checkpoint)
    stored = sum(t.nbytes for t in checkpoint.tensors.values())
    held = checkpoint.held_bytes(head.dtype)
    text = f"{served.id}: {len(checkpoint.tensors)} tensors, {stored / 1e6:.1f} MB stored"
    yield Finding("ok", "checkpoint", f"{text}, {held / 1e6:.1f} MB as they are served, in {head.dtype}")
    yield from _memory(config, held)


def _memory(config: Config, weights: int) -> Iterator[Finding]:
    needed = memory_needed(config, weights)
    if not needed:
        return
    found = memory(os.environ, ray=config.runtime == "ray")
    try:
        taken_over = bool(daemon.left_behind(config.cluster.namespace))
    except (ValueError, OSError):
        taken_over = False
    if problem := found.problem(needed, taken_over):
        yield Finding("fail", "memory", problem, found.advice())
    else:
        yield Finding("ok", "memory", f"{needed / 1e9:.1f} GB needed here, {found.words()}")


def _open_files(config: Config) -> Finding:
    limit = raise_open_files()
    if problem := open_files_problem(limit, config):
        return Finding("fail", "open files", problem)
    return Finding("ok", "open files", f"{limit} allowed")
