"""What happens to a machine: Ray's own processes end, `serve` stands still, a disk or the shared memory is full."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.chaos.streams import Streams, Tally, some_requests
from tests.daily.report import Row
from tests.daily.signals import NEVER
from tests.integration.server import Server

_END_SECONDS = 100.0  # until a serve that cannot go on must have ended


@contextlib.contextmanager
def under_load(*settings: str) -> Iterator[tuple[Server, Streams]]:
    """A server, and eight streams that know their answers."""
    server = Server(*(word for setting in settings for word in ("--set", setting)))
    try:
        server.wait_ready()
        streams = Streams(server.address, some_requests(3, 8, 48), at_once=8)
        streams.learn()
        yield server, streams
    finally:
        server.close()


def ray_process(name: str) -> Callable[[int], Row]:
    """SIGKILL Ray's own `name` under load: `serve` cannot go on without it, ends with exit code 1 by itself, leaves
    nothing behind, and the next one serves.
    """

    def happening(times: int) -> Row:
        total, ends, left, bad = Tally(), list[float](), list[str](), list[str]()
        for _ in range(times):
            with under_load("gateway.grace_s=5") as (server, streams):
                tally = streams.start()
                time.sleep(1.0)
                began = time.monotonic()
                _named(server, name).kill()
                streams.finish()
                try:
                    code = server.process.wait(_END_SECONDS)
                except subprocess.TimeoutExpired:
                    code = NEVER
                ends.append(time.monotonic() - began)
                streams.stop()
                total.done, total.different = total.done + tally.done, total.different + tally.different
                total.failed += tally.failed
                bad += [f"exit code {code}"] * (code != 1)
                bad += sorted({text for text in tally.failed if not text.startswith("UNAVAILABLE")})
                left += server.leftovers()
                server.start_again()
                server.wait_ready()
        notes = "serve ends by itself; what was under way fails with UNAVAILABLE"
        return _row(f"{name} killed", times, total, f"after {max(ends):.1f} s at most", left, bad, notes)

    return happening


def standstill(times: int) -> Row:
    """SIGSTOP of `serve` for 20 s: streams stand still and go on."""
    bad, total = list[str](), Tally()
    for _ in range(times):
        with under_load() as (server, streams):
            tally = streams.start()
            time.sleep(1.0)
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(20.0)
            server.process.send_signal(signal.SIGCONT)
            time.sleep(2.0)
            total = streams.stop()
            bad += sorted(set(tally.failed))
            bad += ["tokens differ"] * bool(tally.different)
            bad += ["serve has ended"] * (server.process.poll() is not None)
    return _row("serve stands still for 20 s", times, total, "", [], bad)


def full_disk(times: int) -> Row:
    """The file system of Ray's own files has no room left while streams run. Needs root, to mount a small one."""
    bad, left, total = list[str](), list[str](), Tally()
    for _ in range(times):
        with _small_file_system(Path("/tmp/ewfull"), 400 << 20) as folder:
            server = Server(state=folder)
            try:
                server.wait_ready()
                streams = Streams(server.address, some_requests(3, 8, 48), at_once=8)
                streams.learn()
                tally = streams.start()
                _fill(folder)
                time.sleep(8.0)
                total = streams.stop()
                bad += sorted(set(tally.failed))[:3]
                bad += ["tokens differ"] * bool(tally.different)
                code = server.stop()
                bad += [f"exit code {code}"] * (code != 0)
                left += [what for what in server.leftovers() if "process" in what]
            finally:
                server.close()
    return _row("the disk of Ray's files is full", times, total, "", left, bad)


def full_shared_memory(times: int) -> Row:
    """/dev/shm has no room left while streams run; rows beyond 512 KiB a call go through it."""
    bad, total = list[str](), Tally()
    for _ in range(times):
        with under_load() as (server, streams):
            tally = streams.start()
            with _filled_shared_memory(server):
                time.sleep(8.0)
            total = streams.stop()
            bad += sorted(set(tally.failed))[:3]
            bad += ["tokens differ"] * bool(tally.different)
    return _row("/dev/shm is full", times, total, "", [], bad)


def cleaned_folder(times: int) -> Row:
    """The folder of Ray's record is cleaned away under a running server, which is then killed: `down` finds what is
    left by its mark.
    """
    bad, left, total = list[str](), list[str](), Tally()
    for _ in range(times):
        with under_load() as (server, streams):
            tally = streams.start()
            for path in server.state.glob("eightwinds-*"):
                shutil.rmtree(path)
            time.sleep(3.0)
            total = streams.stop()
            bad += sorted(set(tally.failed))[:3]
            server.process.kill()
            server.process.wait()
            answer = server.command("down")
            bad += [f"down: {answer.stdout}{answer.stderr}"] * (answer.returncode != 0)
            left += server.leftovers()
    return _row("its files are cleaned away, then kill -9 and down", times, total, "", left, bad)


def _row(what: str, times: int, tally: Tally, ended: str, left: list[str], bad: list[str], notes: str = "") -> Row:
    longest = max(tally.gaps(), default=0.0)
    return Row(
        what, times, tally.done, len(tally.failed), tally.different, longest, ended, tuple(left), tuple(bad), notes
    )


def _named(server: Server, name: str) -> psutil.Process:
    assert server.local is not None
    for pid in server.local.pids():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.name() == name:
                return process
    raise AssertionError(f"no process {name}")


@contextlib.contextmanager
def _small_file_system(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb") as filler:
        while True:
            filler.write(b"x" * (1 << 20))


@contextlib.contextmanager
def _filled_shared_memory(server: Server) -> Iterator[None]:
    """Leave 1 MiB of /dev/shm; on a machine whose /dev/shm is as large as its memory, make it smaller meanwhile."""
    before = shutil.disk_usage("/dev/shm")
    subprocess.run(["mount", "-o", f"remount,size={before.used + (1 << 20)}", "/dev/shm"], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", f"remount,size={before.total}", "/dev/shm"], check=True)
        assert os.access("/dev/shm", os.W_OK)
