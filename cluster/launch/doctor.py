"""`eightwinds doctor`: looks at everything a start depends on and says what to do about each problem."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from actors.threads import cores, threads_for
from cluster.launch.checks import (
    check_exposure,
    memory,
    memory_needed,
    open_certificates,
    open_files_problem,
    open_model,
    raise_open_files,
)
from cluster.launch.local_ray import daemon
from cluster.launch.local_ray.auth import ADVICE, ray_auth
from cluster.launch.specs import experts_form, held_bytes, served_dtype
from cluster.settings.address import bind
from cluster.settings.config import Config, load_config
from cluster.settings.tokens import TokenFile

_PACKAGES = ("ray", "torch", "grpcio", "grpcio-health-checking", "grpcio-reflection", "sentencepiece", "safetensors")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `level` is ok, warn or fail, `advice` what to do about it."""

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
    yield Finding("ok", "python", f"{platform.python_version()}, {os.cpu_count()} CPUs")
    yield from map(_package, _PACKAGES)
    try:
        config = load_config(file, os.environ, settings)
    except ValueError as error:
        yield Finding("fail", "configuration", str(error), "mend the key; docs/operations.md lists all")
        return
    yield Finding("ok", "configuration", "valid")
    yield _gpu(config)
    for key, address in (("listen", config.gateway.listen), ("http", config.gateway.http)):
        yield _checked("port", partial(_port, address), f"stop what listens there, or set gateway.{key}")
    yield _checked("tokens", partial(_tokens, config), "eightwinds token NAME --file FILE makes a token and its file")
    yield _certificates(config)
    if config.cluster.ray_address:
        level, text = ray_auth().problem(config.cluster.ray_address)
        yield Finding(level, "ray", text, "" if level == "ok" else ADVICE)
    yield _checked("shared memory", _shared_memory, "give it 300 MiB (docker: --shm-size=1g)")
    yield _checked("open files", partial(_open_files, config))
    left = _leftovers(config)
    yield from left
    yield from _checkpoint(config, taken_over=any(finding.level == "warn" for finding in left))


def _checked(subject: str, check: Callable[[], str], advice: str = "") -> Finding:
    """The finding of a check, or the ValueError or OSError that it raises, with advice."""
    try:
        return Finding("ok", subject, check())
    except (ValueError, OSError) as error:
        return Finding("fail", subject, str(error), advice)


def _package(name: str) -> Finding:
    try:
        return Finding("ok", "package", f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
        return Finding("fail", "package", f"{name} is missing", "pip install -c constraints.txt -e .")


def _gpu(config: Config) -> Finding:
    wanted = config.head.num_gpus + config.experts.num_gpus * config.experts.count
    present = shutil.which("nvidia-smi") is not None
    if not wanted and present:
        return Finding("ok", "gpu", "present, not asked for", "set head.num_gpus and experts.num_gpus to use it")
    if not wanted:
        return Finding("ok", "gpu", "none, none asked for")
    if not present and not config.cluster.ray_address:
        return Finding("fail", "gpu", f"{wanted:g} asked for, none here", "set head.num_gpus=0 and experts.num_gpus=0")
    if importlib.util.find_spec("flash_attn") is None:
        return Finding("warn", "gpu", "flash-attn is not installed", "pip install 'eightwinds[gpu]', else SDPA is used")
    return Finding("ok", "gpu", f"{wanted:g} asked for")


def _threads(config: Config, hidden_size: int) -> Finding:
    """As they would be if all actors ran on this machine."""
    head = config.head.threads or threads_for(hidden_size, 1)
    expert = config.experts.threads or threads_for(hidden_size, config.experts.count)
    text = f"{head} in the head, {expert} in each expert, on the {cores()} cores here"
    advice = "" if max(head, expert) <= cores() else "set head.threads and experts.threads to no more than the cores"
    return Finding("warn" if advice else "ok", "threads", text, advice)


def _port(address: str) -> str:
    bind(address).close()
    return f"{address} is free"


def _tokens(config: Config) -> str:
    check_exposure(config)
    if not config.security.token_file:
        return "none asked for: whoever reaches the ports may send requests"
    TokenFile(Path(config.security.token_file))
    return f"asked for, by {config.security.token_file}"


def _certificates(config: Config) -> Finding:
    try:
        found = open_certificates(config)
    except ValueError as error:
        return Finding("fail", "tls", str(error), "docs/security.md says how to make certificates")
    if found is None:
        return Finding("ok", "tls", "none: what is sent can be read on its way")
    shown, clients = found.current(), "; clients must show one" if found.asks_clients else ""
    if warning := shown.warning(datetime.now(UTC)):
        return Finding("warn", "tls", warning, "replace the files; serve reads them again by itself")
    return Finding("ok", "tls", f"valid until {shown.expires:%Y-%m-%d}{clients}")


def _shared_memory() -> str:
    free = shutil.disk_usage("/dev/shm").free
    if free < 300 << 20:
        raise ValueError(f"{free >> 20} MiB in /dev/shm")
    return f"{free >> 20} MiB free in /dev/shm"


def _open_files(config: Config) -> str:
    limit = raise_open_files()
    if problem := open_files_problem(limit, config):
        raise ValueError(problem)
    return f"{limit} allowed"


def _leftovers(config: Config) -> list[Finding]:
    try:
        left = daemon.left_behind(config.cluster.namespace)
    except (ValueError, OSError) as error:
        return [Finding("fail", "leftovers", str(error), "nothing there is read or removed, whoever made it")]
    advice = "the next serve takes over what is recorded, and ends the rest; eightwinds down removes it"
    return [Finding("warn", "leftovers", text, advice) for text in left] or [Finding("ok", "leftovers", "none")]


def _checkpoint(config: Config, taken_over: bool) -> Iterator[Finding]:
    """The checkpoint, and whether its weights fit into this machine's memory, where they may be already."""
    try:
        served = open_model(config)
        held, form = held_bytes(config, served.checkpoint), experts_form(config, served.checkpoint)
    except ValueError as error:
        yield Finding("fail", "checkpoint", str(error), "docs/operations.md lists the folders that can be served")
        return
    checkpoint, dtype = served.checkpoint, served_dtype(config, served.checkpoint)
    stored = sum(t.nbytes for t in checkpoint.tensors.values())
    text = f"{served.id}: {len(checkpoint.tensors)} tensors, {stored / 1e6:.1f} MB stored"
    forms = dtype if form == "none" else f"{dtype}, experts in {form}"
    yield Finding("ok", "checkpoint", f"{text}, {held / 1e6:.1f} MB as they are served, in {forms}")
    chat = served.chat_format
    if isinstance(chat, str):
        yield Finding("ok", "chat", f"none: it {chat}", "eightwinds inspect tells more of the checkpoint")
    else:
        yield Finding("ok", "chat", f"{chat.name}, {'with' if chat.calls else 'without'} tools")
    yield _threads(config, checkpoint.config.hidden_size)
    if needed := memory_needed(config, held):
        found = memory(os.environ, ray=config.runtime == "ray")
        if problem := found.problem(needed, taken_over):
            yield Finding("fail", "memory", problem, found.advice())
        else:
            yield Finding("ok", "memory", f"{needed / 1e9:.1f} GB needed here, {found.words()}")
