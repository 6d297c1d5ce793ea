"""Variables that torch and OpenMP read when they are loaded, so that this module must not load them. Values that the
operator has set stay.
"""

import os


def let_threads_sleep() -> None:
    """Threads of torch that wait for work sleep: while they spin, as OpenMP has it, processes that compute meanwhile
    lack their cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def use_large_pages() -> None:
    """Matrices lie in pages of 2 MiB where the system has them: an expert reads all its weights of a layer in each
    call, and with pages of 4 KiB the way to their addresses is read anew every time.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
