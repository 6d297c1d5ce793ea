"""Compiles a grammar in a process of its own first, with its time and memory limited, so that none harms the server.

The library has no limit on memory, and its limits on time begin late: twenty patterns that must all match took 2.6 s
and 200 MB. `python -m model.constraint.trial` is that process: it reads the grammar from stdin and prints the library's
error, if there is one.
"""

import re
import sys
from types import SimpleNamespace

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from model import trial

CPU_SECONDS = 0.25  # for compiling; the interpreter and its imports are not counted
MEMORY_BYTES = 128 << 20  # above what the process has when it begins
_WALL_SECONDS = 10.0

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
    found = trial.attempt(__name__, grammar, _WALL_SECONDS)
    return TOO_COSTLY if found is None else found


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
    trial.limit(CPU_SECONDS, MEMORY_BYTES)
    walker = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if not walker.is_error():
        walker.compute_bitmask()
    sys.stdout.write(walker.get_error() if walker.is_error() else "")


if __name__ == "__main__":
    main()
