"""Property names that patterns match, up to the number that counts as many: found by walking the patterns."""

from functools import cache

import numpy as np
from llguidance import LLMatcher, LLParserLimits

from model.constraint.trial import byte_tokenizer

# The least number of names for a patternProperties: with fewer a text could reach a comma with nothing to follow.
ENOUGH_NAMES = 64

_LIMITS = LLParserLimits(max_lexer_states=10_000, initial_lexer_fuel=50_000, verbose_errors=False)
_tokenizer = cache(byte_tokenizer)
_MOST_STEPS = 4096
_EXAMPLES = b"aA0_-. /:$@\xc3\xa9"  # bytes to try first, which finds enough names soon where there are many


def names(inside: list[str], outside: list[str]) -> set[str]:
    """Up to ENOUGH_NAMES names that every pattern `inside` and no pattern `outside` matches anywhere. With that many
    names, their spelling is not promised. ValueError if a pattern cannot be read, or is too large to walk.
    """
    terms = ["/(?s:.*)/"]
    terms += [f"/{_anywhere(p)}/" for p in inside] + [f"~/{_anywhere(p)}/" for p in outside]
    grammar = f'%llguidance {{"no_forcing": true}}\nstart: NAME\nNAME: {" & ".join(terms)}\n'
    root = LLMatcher(_tokenizer(), grammar, log_level=0, limits=_LIMITS)
    if root.is_error():
        raise ValueError(f"patternProperties cannot be used: {root.get_error().splitlines()[0][:120]}")
    found, todo = set[str](), [(root, b"")]
    for _ in range(_MOST_STEPS):
        if not todo or len(found) >= ENOUGH_NAMES:
            break
        if not outside and len(todo) > 2 * ENOUGH_NAMES:  # without a complement every beginning has an end
            return {str(i) for i in range(ENOUGH_NAMES)}
        walker, text = todo.pop(0)
        bits = np.unpackbits(np.frombuffer(walker.compute_bitmask(), np.uint8), bitorder="little")
        if walker.is_accepting():
            found.add(text.decode(errors="replace"))
        following = [int(b) for b in np.flatnonzero(bits[:256])]
        # Many continuations mean many names; some of them are enough.
        following.sort(key=lambda b: _EXAMPLES.find(b) if b in _EXAMPLES else 99)
        for byte in following[: ENOUGH_NAMES + 1]:
            further = walker.deep_copy()
            if further.consume_token(byte):
                todo.append((further, text + bytes([byte])))
    else:
        raise ValueError("a patternProperties is too large to tell which names it means")
    return found


def _anywhere(pattern: str) -> str:
    """A pattern for a part of a name, as a pattern for the whole name."""
    begin = "" if pattern.startswith("^") else "(?s:.*)"
    end = "" if pattern.endswith("$") and not pattern.endswith(r"\$") else "(?s:.*)"
    inner = pattern.replace("/", r"\x2f").removeprefix("^")
    return f"{begin}({inner if end else inner.removesuffix('$')}){end}"
