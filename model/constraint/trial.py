"""Compiles a grammar in a process of its own first, with its time and memory limited, so that none harms the server.

The library has no limit on memory, and its limits on time begin late: twenty patterns that must all match took 2.6 s
and 200 MB. `python -m model.constraint.trial` is that process: it reads the grammar from stdin and prints the library's
error, if there is one.
"""

import os
import re
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

CPU_SECONDS = 0.25  # for compiling; the interpreter and its imports are not counted
MEMORY_BYTES = 128 << 20  # above what the process has when it begins
_WALL_SECONDS = 10.0  # a machine may be busy

TOO_COSTLY = "it takes too long, or too much memory, to compile; use a smaller one"


def costly(grammar: str) -> bool:
    """Whether compiling may cost more than the tens of milliseconds of a process of its own: patterns that may all have
    to match, large counted repeats, and long texts. A costly grammar missed here is still measured when it is compiled.
    """
    patterns = grammar.count('"pattern') + grammar.count('"format"')
    repeats = max((int(count) for count in re.findall(r"\{(?:\d+,)?(\d{2,9})\}", grammar)), default=0)
    return len(grammar) > 8192 or patterns > 1 or repeats > 256


def attempt(grammar: str) -> str:
    """The library's error for a grammar, TOO_COSTLY, or "" if it compiles within the limits."""
    command = [sys.executable, "-m", "model.constraint.trial"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    try:
        done = subprocess.run(
            command, input=grammar.encode(), capture_output=True, timeout=_WALL_SECONDS, check=False, env=env
        )
    except subprocess.TimeoutExpired:
        return TOO_COSTLY
    return done.stdout.decode(errors="replace") if done.returncode == 0 else TOO_COSTLY


def byte_tokenizer() -> LLTokenizer:
    """A vocabulary of single bytes and an end: the cost of compiling a grammar does not depend on the vocabulary."""
    return piece_tokenizer([*(bytes([i]) for i in range(256)), b""], [256])


def piece_tokenizer(pieces: list[bytes], eos_ids: list[int]) -> LLTokenizer:
    vocabulary = SimpleNamespace(tokens=pieces, eos_token_id=eos_ids[0], bos_token_id=None, special_token_ids=[])
    return LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=len(pieces), eos_token=eos_ids)


def main() -> None:
    limits = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)
    tokenizer = byte_tokenizer()
    grammar = sys.stdin.buffer.read().decode()
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, held + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
    walker = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not walker.is_error():
        walker.compute_bitmask()
    sys.stdout.write(walker.get_error() if walker.is_error() else "")


if __name__ == "__main__":
    main()
