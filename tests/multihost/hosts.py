"""Hosts on this machine, each with network, processes, file system, name and shared memory of its own, on one switch.

The switch is a bridge in the jail's own network, so that whoever runs this reaches the hosts as 10.78.0.1, 10.78.0.2
and so on. A host that is killed loses its processes and keeps its disk, like one that loses power.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.multihost import jail
from tests.multihost.cpu_limit import CpuLimit

ROOT = Path(__file__).resolve().parent.parent.parent
PREFIX = Path(sys.prefix).resolve()
PYTHON = str(PREFIX / "bin" / "python")
_INIT = Path(__file__).with_name("init.sh")
_DISKS = Path("/run/hosts")
_NETWORK = "10.78.0"
_BRIDGE = "switch"
_PATIENCE = 30.0


class Host:
    """One of them; `Hosts` makes it."""

    def __init__(self, number: int, disk: str = "") -> None:
        """A `disk` of such a size, 64m, or what there is."""
        self.name, self.address = f"h{number}", f"{_NETWORK}.{number}"
        self._size = disk
        self.disk = _DISKS / self.name
        self._hardware_address = f"02:00:0a:4e:00:{number:02x}"  # the same after a boot, or others would not find it
        self.limit: CpuLimit | None = None  # of commands that begin from then on
        self._first: psutil.Process | None = None  # its process 1, as the jail numbers it
        self._parent: subprocess.Popen[str] | None = None

    @property
    def up(self) -> bool:
        """Whether it runs."""
        return self._parent is not None

    def boot(self) -> None:
        """Start it, with the disk that it had if it ran before."""
        assert not self.up, f"{self.name} runs already"
        kinds = ("--mount", "--net", "--pid", "--ipc", "--uts")
        command = ["unshare", *kinds, "--fork", "--kill-child", "--propagation", "private", "bash", str(_INIT)]
        command += [self.name, str(self.disk), *_shared()]
        if self._size and not self.disk.exists():
            self.disk.mkdir(parents=True)
            _do("mount", "-t", "tmpfs", "-o", f"size={self._size}", self.name, str(self.disk))
        self.disk.mkdir(parents=True, exist_ok=True)
        with (self.disk / "boot.log").open("w") as log:
            self._parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._parent.stdout is not None
        if self._parent.stdout.readline() != "up\n":
            raise RuntimeError(f"{self.name} did not boot: {(self.disk / 'boot.log').read_text()}")
        (self._first,) = psutil.Process(self._parent.pid).children()
        self._plug_in()

    def _plug_in(self) -> None:
        assert self._first is not None
        inside, wire = ["nsenter", "-t", str(self._first.pid), "-n", "ip"], self._wire
        peer = ["peer", "name", "eth0", "address", self._hardware_address, "netns", str(self._first.pid)]
        _do("ip", "link", "add", wire, "type", "veth", *peer)
        _do("ip", "link", "set", wire, "master", _BRIDGE, "up")
        _do(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _do(*inside, "link", "set", "eth0", "up")
        _do(*inside, "route", "add", "default", "via", f"{_NETWORK}.254")  # Ray finds its own address by this route

    @property
    def _wire(self) -> str:
        return f"to-{self.name}"

    def kill(self) -> None:
        """SIGKILL for its process 1, and so for all of them."""
        if self._parent is None:
            return
        if self._first is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._first.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._parent.wait(_PATIENCE)
        self._parent.kill()
        self._parent.wait()
        self._parent = self._first = None
        if _there(self._wire):  # the kernel takes it away with the host's network, but that may take its time
            with contextlib.suppress(RuntimeError):
                _do("ip", "link", "del", self._wire)

    def cut(self) -> None:
        """Pull the cable: what is sent is lost, and nobody is told."""
        _do("ip", "link", "set", self._wire, "down")

    def heal(self) -> None:
        """Put the cable back."""
        _do("ip", "link", "set", self._wire, "up")

    def lose_packets(self, thousandths: int) -> None:
        """Drop so many of a thousand packets, each way."""
        drop = f"numgen random mod 1000 < {thousandths} drop"
        chains = "; ".join(
            f"add chain inet lossy {way} {{ type filter hook {way} priority 0; }}; add rule inet lossy {way} {drop}"
            for way in ("input", "output")
        )
        self.run("nft", f"add table inet lossy; {chains}")

    def lose_nothing(self) -> None:
        """Keep all packets again."""
        self.run("nft", "delete table inet lossy")

    def slow_down(self, megabits: float) -> None:
        """So many megabits a second go to it, and as many come from it."""
        shape = ["root", "tbf", "rate", f"{megabits}mbit", "burst", "16kb", "latency", "400ms"]
        _do("tc", "qdisc", "add", "dev", self._wire, *shape)
        self.run("tc", "qdisc", "add", "dev", "eth0", *shape)

    def speed_up(self) -> None:
        """As fast as its link is again."""
        _do("tc", "qdisc", "del", "dev", self._wire, "root")
        self.run("tc", "qdisc", "del", "dev", "eth0", "root")

    def readdress(self) -> None:
        """Another address on the same network, and none of the old connections."""
        old, self.address = self.address, f"{_NETWORK}.{100 + int(self.address.rpartition('.')[2])}"
        self.run("ip", "addr", "del", f"{old}/24", "dev", "eth0")
        self.run("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "route", "add", "default", "via", f"{_NETWORK}.254")

    def command(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """The words that run these in the host, as root with a clean environment, where the checkout is."""
        assert self._first is not None, f"{self.name} is down"
        path = f"{PREFIX / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        clean = {"HOME": "/root", "USER": "root", "LANG": "C.UTF-8", "PATH": path, "PYTHONPATH": str(ROOT)}
        assigned = [f"{name}={value}" for name, value in (clean | dict(environment or {})).items()]
        enter = ["nsenter", "-t", str(self._first.pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        limited = self.limit.words() if self.limit else []
        return [*limited, *enter, "env", "-i", "-C", str(ROOT), *assigned, *words]

    def run(self, *words: str, environment: Mapping[str, str] | None = None, timeout: float = 120.0) -> str:
        """Run a command in it to its end; what it printed. RuntimeError if it fails."""
        command = self.command(words, environment)
        process = subprocess.Popen(
            command, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()  # not nsenter, which takes note of its end: else it is a zombie, and the host cannot end
            said, _ = process.communicate()
            said += f"\nnot ended within {timeout:g} s"
        if process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(words)}: exit code {process.returncode}\n{said[-3000:]}")
        return said

    def processes(self) -> Iterator[psutil.Process]:
        """All that run in it."""
        if self._first is None:
            return
        mine = os.readlink(f"/proc/{self._first.pid}/ns/pid")
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{process.pid}/ns/pid") == mine:
                    yield process

    def kill_processes(self, name: str) -> int:
        """SIGKILL for its processes of this name; how many there were."""
        found = [process for process in self.processes() if process.name() == name]
        for process in found:
            os.kill(process.pid, signal.SIGKILL)
        return len(found)


class Hosts:
    """`count` of them, up when it is made. Use it with `with`; they are gone at its end, their disks, too."""

    def __init__(self, count: int) -> None:
        assert jail.inside(), "hosts live in a jail: see tests.multihost.jail"
        _do("ip", "link", "add", _BRIDGE, "type", "bridge")
        _do("ip", "addr", "add", f"{_NETWORK}.254/24", "dev", _BRIDGE)
        _do("ip", "link", "set", _BRIDGE, "up")
        self.all = [Host(number) for number in range(1, count + 1)]
        for host in self.all:
            host.boot()

    def add(self, disk: str = "") -> Host:
        """One more, up; with a disk of such a size, or what there is."""
        self.all.append(Host(len(self.all) + 1, disk))
        self.all[-1].boot()
        return self.all[-1]

    def remove(self, host: Host) -> None:
        """Take it away; its disk stays until the end."""
        host.kill()
        self.all.remove(host)

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.all if host.name == name)

    def close(self) -> None:
        """Remove all of it; safe to call twice."""
        for host in self.all:
            host.kill()
            if host.limit:
                host.limit.remove()
        if _there(_BRIDGE):
            _do("ip", "link", "del", _BRIDGE)
        shutil.rmtree(_DISKS, ignore_errors=True)


def _shared() -> list[str]:
    """What hosts see of this machine besides its root disk: the checkout and the Python that runs this."""
    return sorted({str(ROOT), str(PREFIX), str(Path(sys.base_prefix).resolve())})


def _there(interface: str) -> bool:
    return interface in (name for _, name in socket.if_nameindex())


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
