"""A process for work on long requests, because a thread would keep the interpreter's lock from every stream.

It starts with the first such request, ends after a while without one, or with work that takes too much time or memory,
and yields to the server's own work. It reads work from stdin and writes each result or exception to stdout.
"""

import contextlib
import logging
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, TypeVar

from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import exhausted
from cluster.gateway.examination.examiner import Examiner

T = TypeVar("T")

_IDLE_SECONDS = 60.0
_STALLED = 3  # times the seconds of a core, on the clock, plus ...
_STALLED_SECONDS = 30.0  # ... so many for a start on a busy machine
_NICE = 10
_OUT_OF_MEMORY = 3  # exit code
_KILLED = (-signal.SIGPROF, -signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV)  # by limits, by the system, by C++

log = logging.getLogger("eightwinds.examiner")


class ExaminerProcess:
    """The server's end of the process. Only `close` may be called while another thread is in `run`."""

    def __init__(self, model: str, cpu_seconds: float, memory_bytes: int) -> None:
        """Work may take `cpu_seconds` of a core, and `memory_bytes` more than the process has at rest."""
        self._command = [sys.executable, "-m", "cluster.gateway.examination.process", model, str(memory_bytes)]
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, work: Callable[[Examiner], T]) -> T:
        """Return or raise what the work does. ApiError (EXHAUSTED) if it takes more than it may; RuntimeError if the
        process cannot work, for example because the model's folder is gone.
        """
        request, answer = pickle.dumps((self._cpu_seconds, work)), None
        with contextlib.suppress(OSError):  # the process could not be started
            answer = self._ask(request) or self._ask(request)  # it may just have ended, being idle
        if answer is None:
            raise exhausted("EXAMINATION_BUSY", "the server cannot examine the request now; try again", 1.0)
        result, error = answer
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the process, even in the middle of its work."""
        if self._process is not None:
            self._process.kill()

    def _ask(self, request: bytes) -> tuple[Any, Exception | None] | None:
        """The result and the exception of the work; None if the process had ended before the work began."""
        if self._process is None or self._process.poll() is not None:
            path = os.pathsep.join(path or "." for path in sys.path)
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
            )
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(request)
            process.stdin.flush()
            if _readable(process.stdout, _STALLED * self._cpu_seconds + _STALLED_SECONDS):
                return pickle.load(process.stdout)  # type: ignore[no-any-return]  # from a process of our own
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            pass
        process.kill()
        code = process.wait()
        if code == 0:
            return None
        if code not in (_OUT_OF_MEMORY, *_KILLED):
            raise RuntimeError(f"the process that examines long requests ended with {code}; the log has its traceback")
        log.warning("examining a request was given up: its process ended with %s", code)
        limits = "limits.examination_cpu_s, limits.examination_memory_bytes"
        text = f"examining the request takes more time or memory than one may ({limits}); send less"
        return None, exhausted("REQUEST_TOO_COSTLY", text)


def _readable(file: IO[bytes], seconds: float) -> bool:
    """Whether data or the end can be read within so many seconds. `select` would fail for descriptors over 1023."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def main() -> None:
    model, memory_bytes = sys.argv[1], int(sys.argv[2])
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which drains first
    examiner = Examiner(ServedModel.open(model))
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory_bytes, held + memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while _readable(sys.stdin.buffer, _IDLE_SECONDS):
        try:
            cpu_seconds, work = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # SIGPROF ends the process
        try:
            answer = pickle.dumps((work(examiner), None))
        except MemoryError:
            os._exit(_OUT_OF_MEMORY)
        except Exception as error:
            answer = pickle.dumps((None, error))
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        answers.write(answer)
        answers.flush()


if __name__ == "__main__":
    main()
