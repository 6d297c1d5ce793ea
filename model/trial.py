"""Work that may take too much time or memory, in a process of its own that is limited.

The process is a module's `main`: it reads a text from stdin, calls `limit`, and prints what is wrong with it, if
anything.
"""

import os
import resource
import signal
import subprocess
import sys


def attempt(module: str, text: str, wall_seconds: float) -> str | None:
    """All that the module prints about the text; None if it took more than it may. A machine may be busy, so that
    `wall_seconds` must be more than the module's own limit.
    """
    command = [sys.executable, "-m", module]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=wall_seconds, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def limit(cpu_seconds: float, memory_bytes: int) -> None:
    """End this process when it takes more, from now on, than so much of a core, and fail when it takes more memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory_bytes, held + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # SIGPROF ends the process
