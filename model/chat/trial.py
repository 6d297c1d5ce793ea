"""Renders a template in a process of its own first, with its time and memory limited, so that none harms the server.

`python -m model.chat.trial` is that process: it reads the template from stdin and prints why it is refused, if it is.
"""

import os
import resource
import signal
import subprocess
import sys

from model.chat.sandbox import Sandbox

_CPU_SECONDS = 1.0  # beyond the interpreter's own start
_MEMORY_BYTES = 256 << 20  # above what the process has when it begins
_WALL_SECONDS = 20.0  # a machine may be busy
TOO_COSTLY = "its chat template takes too long, or too much memory"


def attempt(source: str) -> str:
    """Why a template cannot be used: TOO_COSTLY, or what is wrong with it; "" if it can. One that refuses the
    conversation of the trial in words of its own can.
    """
    command = [sys.executable, "-m", "model.chat.trial"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    try:
        done = subprocess.run(
            command, input=source.encode(), capture_output=True, timeout=_WALL_SECONDS, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        return TOO_COSTLY
    return done.stdout.decode(errors="replace") if done.returncode == 0 else TOO_COSTLY


def main() -> None:
    source = sys.stdin.buffer.read().decode(errors="replace")
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY_BYTES, held + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)  # SIGPROF ends the process
    try:
        sandbox = Sandbox(source)
    except ValueError as error:
        sys.stdout.write(str(error))
        return
    messages = [{"role": "user", "content": "Hello"}]
    values = {"messages": messages, "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        sandbox.render(values | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    except ValueError as error:
        if "too long" in str(error) or "takes more than" in str(error) or isinstance(error.__cause__, MemoryError):
            sys.stdout.write(TOO_COSTLY)


if __name__ == "__main__":
    main()
