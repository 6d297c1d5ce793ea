"""What a script holds a server to, check by check. It runs in a client's environment: nothing but Python is there.

A line of standard output tells each: `ok NAME`, or `FAILED NAME: why`; a last one says with which releases.
"""

import asyncio
import inspect
import json
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

Check = TypeVar("Check", bound=Callable[..., Any])
OK, FAILED, RELEASES, LEARNT = "ok ", "FAILED ", "with ", "learnt"


@dataclass(frozen=True, slots=True)
class Target:
    """HOST:PORT of the usual server, and of a narrow one, which runs one output at a time, lets 16 wait and asks for
    `token`; the model's name; a folder for what is kept meanwhile, with `expected.json` and a Hugging Face tokenizer in
    `tokenizer`.
    """

    http: str
    narrow: str
    token: str
    model: str
    folder: str

    @property
    def base(self) -> str:
        return f"http://{self.http}/v1"


_CHECKS: list[Callable[[Target], Any]] = []


def check(function: Check) -> Check:
    """One of the script's checks, run in the order of the file; an async one on a loop of its own."""
    if function.__module__ == "__main__":  # not one of a module that the script takes something from
        _CHECKS.append(function)
    return function


def run(*distributions: str) -> int:
    """All checks, against the target that the command line names."""
    target, failed = Target(**json.loads(sys.argv[1])), 0
    for function in _CHECKS:
        name = function.__name__.replace("_", " ")
        try:
            told = function(target)
            if inspect.isawaitable(told):
                asyncio.run(_awaited(told))
        except Exception as error:  # whatever a client raises is what is looked for
            failed += 1
            traceback.print_exc()
            said = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"{FAILED}{name}: {said[:300]}", flush=True)
        else:
            print(f"{OK}{name}", flush=True)
    releases = [f"{one} {version(one)}" for one in distributions] or [f"Python {platform.python_version()}"]
    print(RELEASES + ", ".join(releases), flush=True)
    return 1 if failed else 0


async def _awaited(told: Any) -> None:
    await told


def same(found: object, wanted: object) -> None:
    """Equality that says what differs."""
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def holds(condition: object, what: object = "") -> None:
    """An assertion that stands under `python -O`, too."""
    if not condition:
        raise AssertionError(str(what))


@contextmanager
def raising(kind: type[BaseException]) -> Iterator[list[Any]]:
    """The block raises this, which is put into the list."""
    caught: list[Any] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    else:
        raise AssertionError(f"no {kind.__name__}")
