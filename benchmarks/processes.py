"""Processes of a benchmark's own, each of which says one thing when it is ready."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any


def begin_again_with(**variables: str) -> None:
    """Run this program anew with these variables in its environment, unless they are set: OpenMP reads its own when
    torch is loaded, and imports come before everything else.
    """
    if missing := variables.keys() - os.environ.keys():
        added = {name: variables[name] for name in missing}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | added)


@contextmanager
def running(work: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Iterator[list[Any]]:
    """Run `work(told, *own)` in a process for each tuple of arguments; yields what each sent through `told`, in order.
    They are killed at the end.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    processes = []
    for own in arguments:
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(theirs, *own), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    try:
        yield [pipe.recv() for pipe in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()
