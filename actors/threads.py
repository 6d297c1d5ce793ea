"""How many threads the processes of head and experts compute with."""

import os

_WORTH = 768  # hidden size: the head's products then have half a million numbers and more


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of(cores: int, processes: int) -> int:
    """Threads for each of so many processes that compute at the same time. The experts of a layer do; the head takes
    turns with them, so that it has all cores of its machine while it computes.
    """
    return max(1, cores // max(1, processes))


def threads_for(hidden_size: int, processes: int) -> int:
    """Of a process that computes beside so many, itself included. A small model gets one, because threads that meet
    after every small product cost more than they compute: with two, the demo checkpoint runs at half the speed.
    """
    return share_of(cores(), processes) if hidden_size >= _WORTH else 1
