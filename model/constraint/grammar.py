"""Keeps an output to a JSON schema or a regular expression by masks of the token ids that may come next.

llguidance does the work: it walks the text's bytes through the grammar and, for each step, the vocabulary through the
possible continuations, so nothing is tabulated beforehand. Masks are numpy, because the gateway checks constraints with
the same module as the head, and has no torch. V: vocabulary of the model.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from llguidance import LLMatcher, LLParserLimits
from numpy.typing import NDArray

from model.batch import Constraint, ConstraintKind
from model.constraint.calls_grammar import calls_grammar
from model.constraint.json_names import Pieces, Place, advance
from model.constraint.schema import read
from model.constraint.trial import TOO_COSTLY, attempt, costly, piece_tokenizer
from model.text.tokenizer import Tokenizer

MAX_TEXT_BYTES = 64 * 1024

# A constraint that takes longer at the gateway is refused there, because the head's step would wait as long.
_MAX_CPU_SECONDS = 0.25
# An automaton grows by the states that it visits; 50,000 are some 30 MB. The other limits are the library's own: they
# end a mask after some 15 ms.
_LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)

# Where only one text can follow, its bytes are not forced in one fixed tokenization: every piece that fits is allowed.
_OPTIONS = '%llguidance {"no_forcing": true}\n'
# Where JSON allows space: one blank, or a line end with an indent, so that a model cannot write space for ever.
_JSON_OPTIONS = {"whitespace_pattern": r" |\n {0,32}"}

_TOO_LARGE = "it is too large, or too many readings of it must be followed at once"
# The library's message (searched for), and the sentence for a caller.
_SAYINGS = (
    (r'Unimplemented keys: \[(.*?)\]', r"these keywords are not supported: \1"),
    (r"Pointer '(.*?)' does not exist", r"a $ref points to '#\1', which it does not have"),
    (r"Resource '(.*?)' is not present", r"'\1' is outside of it, and nothing is fetched"),
    (r"Unsatisfiable schema: (?!Regex is empty)(.*)", r"no text fits it: \1"),
    (r"NoExtension|Regex is empty", "no text fits it"),
    (r"oneOf constraints are not supported.*", "oneOf is supported only where its branches clearly exclude each other"),
    (r"lookarounds not supported", "anchors inside the expression, word boundaries and lookaround are not supported"),
    (r"regex parse error:[\s\S]*error: (.*)", r"error in a regular expression: \1"),
    (r"number out of range", "it holds a number out of range"),
    (r"panic|fuel|too (big|large|many (ex|st))|Unable to determine|Current row|limit", _TOO_LARGE),
)  # fmt: skip
_MAX_SENTENCE = 300
_KINDS = {
    ConstraintKind.JSON_SCHEMA: "JSON schema",
    ConstraintKind.REGEX: "regular expression",
    ConstraintKind.CALLS: "schema of a tool's parameters",
}


class Matcher:
    """One sequence's way through its constraint. Pushing the same ids into a new matcher gives the same state. Not for
    two threads at once. `failure` is "" as long as the text can become one that the constraint allows. Otherwise it
    says why not, and the request must fail: its client must never be told that the output ended.
    """

    def __init__(self, walker: LLMatcher, vocab_size: int, eos_ids: list[int], pieces: Pieces | None = None) -> None:
        """With `pieces` the text is JSON, in which no object may have a name twice."""
        self._walker, self._vocab_size, self._eos_ids = walker, vocab_size, eos_ids
        self._pieces, self._place = pieces, Place()
        self._ended, self.failure = False, ""

    def allowed(self) -> NDArray[np.bool_]:
        """The ids that may come next: a mask that the caller owns, bool [V], never all false. It has the
        end-of-sequence ids where the text is complete; they alone are left after a `failure`, and after the end.
        """
        if not self._ended and not self.failure:
            bits = self._walker.compute_bitmask()
            if self._walker.is_error():
                self.failure = _reason(self._walker.get_error())
            else:
                packed = np.frombuffer(bits, np.uint8)
                mask = np.unpackbits(packed, count=self._vocab_size, bitorder="little").view(np.bool_)
                mask[self._eos_ids] = self._walker.is_accepting()
                if self._pieces is not None:
                    self._pieces.forbid(self._place, mask)
                if mask.any():
                    return mask
                self.failure = "nothing can follow what has been written, which is not a whole text"
        mask = np.zeros(self._vocab_size, np.bool_)
        mask[self._eos_ids] = True
        return mask

    def push(self, token_id: int) -> None:
        """Follow the output by one sampled id. Never raises: an id that was not allowed becomes the `failure`."""
        if self._ended or self.failure:
            return
        if token_id in self._eos_ids:
            self._ended = True
            if not self._walker.is_accepting():
                self.failure = "it was ended before it was a whole text"
        elif not 0 <= token_id < self._vocab_size:
            self.failure = f"{token_id} is no id of this vocabulary"
        elif not self._walker.consume_token(token_id):
            self.failure = _reason(self._walker.get_error()) or f"{token_id} was not allowed"
        elif self._pieces is not None:
            if place := advance(self._place, self._pieces.all[token_id]):
                self._place = place
            else:
                self.failure = "a property name comes twice"


class Constraints:
    """Makes matchers for one model's vocabulary. May be shared between threads.

    JSON has no space around the document; inside, where JSON allows space, it has at most one blank, or a line end with
    up to 32 blanks. Properties come in the schema's order, undeclared ones last; no name comes twice in an object. A
    regular expression (Rust's syntax) means the whole text, with or without ^ and $. A schema that only an endless text
    fits is not detected; its outputs run to max_tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_ids: Iterable[int],
        *,
        cpu_clock: Callable[[], float] = time.thread_time,
        attempt: Callable[[str], str] = attempt,
    ) -> None:
        """`vocab_size` (V) may exceed the tokenizer's: ids beyond are never part of a text, nor are control ids,
        <unk> and `eos_ids`. Each of `eos_ids` ends a text (none: the tokenizer's). Needs 0.1 s and 13 MB for 32,000.
        """
        assert vocab_size >= tokenizer.vocab_size
        self._vocab_size, self._cpu_clock, self._attempt = vocab_size, cpu_clock, attempt
        self._eos_ids = sorted(set(eos_ids)) or [tokenizer.eos_id]
        silent = {tokenizer.unk_id, *self._eos_ids}
        # A control piece has no bytes anyway. An id without bytes can never be part of a text.
        pieces = [b"" if i in silent else tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        pieces += [b""] * (vocab_size - tokenizer.vocab_size)
        self._pieces, self._tokenizer = Pieces(pieces), piece_tokenizer(pieces, self._eos_ids)
        # A request's outputs, and often many requests, share a constraint. Few are kept: a large one holds up to 20 MB.
        self._compiled = lru_cache(maxsize=16)(self._compile)
        self._verdict = lru_cache(maxsize=128)(self._judge)

    def check(self, constraint: Constraint) -> None:
        """ValueError with a sentence for the API's caller if this constraint cannot be used. Takes milliseconds, a
        second or two for the worst one known. The head must not call it.
        """
        if verdict := self._verdict(constraint):
            raise ValueError(verdict)

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the text's beginning. The gateway has called `check` before; errors: its ValueError."""
        return self._matcher(constraint, self._compiled(constraint).deep_copy())

    def _matcher(self, constraint: Constraint, walker: LLMatcher) -> Matcher:
        pieces = self._pieces if constraint.kind is ConstraintKind.JSON_SCHEMA else None
        return Matcher(walker, self._vocab_size, self._eos_ids, pieces)

    def _judge(self, constraint: Constraint) -> str:
        """The fault of a constraint as a sentence, or ""."""
        started = self._cpu_clock()
        try:
            matcher = self._matcher(constraint, self._compile(constraint, tried=False))
        except ValueError as error:
            return str(error)
        for _ in range(4):  # an ambiguous or unsatisfiable one shows at the latest after the opening bracket
            allowed = matcher.allowed()
            allowed[self._eos_ids] = False
            if matcher.failure or not allowed.any():
                break
            matcher.push(int(allowed.argmax()))
        too_long = self._cpu_clock() - started > _MAX_CPU_SECONDS
        failure = matcher.failure or (TOO_COSTLY if too_long else "")
        return failure and _sentence(constraint.kind, failure)

    def _compile(self, constraint: Constraint, tried: bool = True) -> LLMatcher:
        try:
            grammar = _grammar(constraint)
            if not tried and costly(grammar) and (failure := self._attempt(grammar)):
                raise ValueError(_reason(failure))
            walker = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
            if walker.is_error():
                raise ValueError(_reason(walker.get_error()))
        except ValueError as error:
            raise ValueError(_sentence(constraint.kind, str(error))) from None
        return walker


def _grammar(constraint: Constraint) -> str:
    """The constraint in the library's own language; ValueError with a reason if it is refused here already."""
    text = constraint.text
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError("it has a lone surrogate, which is no Unicode text") from None
    if not text:
        raise ValueError("it is empty")
    if size > MAX_TEXT_BYTES:
        raise ValueError(f"it has {size} bytes, and {MAX_TEXT_BYTES} are the most")
    if constraint.kind is ConstraintKind.JSON_SCHEMA:
        return f"{_OPTIONS}start: %json {json.dumps(read(text) | {'x-guidance': _JSON_OPTIONS})}"
    if constraint.kind is ConstraintKind.CALLS:
        return _OPTIONS + calls_grammar(text, _JSON_OPTIONS)
    if re.sub(r"\\.", "", text, flags=re.DOTALL).endswith("\\"):
        raise ValueError("it ends in a lone backslash")
    # Slashes delimit an expression in that language; as code points they cannot end it.
    slashless = re.sub(r"\\.|/", lambda found: r"\x2f" if found[0][-1] == "/" else found[0], text, flags=re.DOTALL)
    return f"{_OPTIONS}start: /{slashless}/"


def _sentence(kind: ConstraintKind, reason: str) -> str:
    what = _KINDS[kind]
    text = f"The {what} cannot be used: {reason}."
    return text if len(text) <= _MAX_SENTENCE else f"{text[: _MAX_SENTENCE - 2]}…."


def _reason(error: str) -> str:
    """The library's message, without its own grammar and its stack."""
    for pattern, saying in _SAYINGS:
        if found := re.search(pattern, error):
            return found.expand(saying)
    line = error.partition("\n")[0]
    return re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: |invalid regex .* \(in regex\): ", "", line)
