"""How many threads the processes of head and experts compute with. It must not load torch (see `settle`)."""

import os


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of(cores: int, processes: int) -> int:
    """Threads for each of so many processes that compute at the same time. The experts of a layer do; the head takes
    turns with them, so that it has all cores of its machine while it computes.
    """
    return max(1, cores // max(1, processes))


def settle() -> None:
    """Let threads of torch that wait for work sleep, unless the environment says otherwise: while they spin, as OpenMP
    has it, the processes that compute meanwhile lack their cores. OpenMP reads this when torch is loaded, not later.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
