"""Variables that OpenMP reads when it is loaded, with torch, and torch with the first matrix that it makes; so this
module must not load torch. Values that the operator has set stay.
"""

import os


def let_threads_sleep() -> None:
    """Threads of torch that wait for work sleep: while they spin, as OpenMP has it, processes that compute meanwhile
    lack their cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def use_large_pages() -> None:
    """torch puts large tensors into pages of 2 MiB where the system has them: a call reads all weights of a layer, and
    with pages of 4 KiB the way to their addresses as well.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
