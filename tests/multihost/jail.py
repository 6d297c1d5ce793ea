"""Where the hosts live: namespaces of our own, in which this program runs again as process 1.

Hosts, switch and mounts exist only in there, so nothing has to be tidied up: when process 1 ends, however it ends, the
kernel ends every process in there, and takes the networks and the mounts away. Nothing in there sees, or can signal, a
process outside, which matters because `ray stop` ends every Ray that it sees.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

_INSIDE = "MULTIHOST_INSIDE"
_TOOLS = {"bash": "bash", "hostname": "hostname", "ip": "iproute2", "mount": "mount"}
_TOOLS |= dict.fromkeys(("nsenter", "pivot_root", "setpriv", "unshare"), "util-linux")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # where several of them lie
_KINDS = ("--mount", "--net", "--pid", "--ipc", "--uts")
_HIDDEN = ("/run", "/dev/shm")  # what lies there belongs to the machine; the hosts' disks lie in the first


def lacks() -> str:
    """What this machine lacks for it, with what to do about it; "" if it can."""
    if os.geteuid() != 0:
        return "hosts in namespaces need root: run it as root"
    if missing := sorted(tool for tool in _TOOLS if shutil.which(tool, path=_PATH) is None):
        packages = sorted({_TOOLS[tool] for tool in missing})
        return f"{', '.join(missing)} not found: install {', '.join(packages)}"
    probe = subprocess.run(["unshare", *_KINDS, "--fork", "true"], capture_output=True, text=True)
    if probe.returncode:
        why = probe.stderr.strip() or f"exit code {probe.returncode}"
        return f"no namespaces here ({why}): in a container, run that one with --privileged"
    return ""


def inside() -> bool:
    """Whether this process is the jail's first."""
    return os.getpid() == 1 and _INSIDE in os.environ


def run_inside(module: str, arguments: Sequence[str]) -> int:
    """Run `python -m module arguments` as process 1 of a jail; its exit code. SIGTERM ends all of it."""
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *_KINDS, "--fork", "--kill-child", "--mount-proc"]
    command += ["--propagation", "private", sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, env=os.environ | {_INSIDE: "1", "PATH": _PATH})

    def end(signum: int, frame: FrameType | None) -> None:
        process.kill()  # what it has forked is killed with it, and is process 1 in there

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to process 1, too
    code = process.wait()
    return code if code >= 0 else 128 - code


def furnish() -> None:
    """What process 1 does first: private /run and /dev/shm, a loopback that works, and Ctrl-C ends it at once."""
    assert inside(), "this would change the machine itself"
    signal.signal(signal.SIGINT, lambda signum, frame: os._exit(130))
    for folder in _HIDDEN:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "multihost", folder], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
