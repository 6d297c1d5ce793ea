"""Keeps an output to a JSON schema or a regular expression: which token ids may be drawn next.

llguidance does the work: it walks the text's bytes through the grammar and, for each step, the vocabulary through what
may follow, so nothing is tabulated beforehand. Masks are numpy, for the gateway checks with this module what the head
will run, and has no torch. V: vocabulary of the model.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from model.batch import Constraint, ConstraintKind
from model.tokenizer import Tokenizer

MAX_TEXT_BYTES = 64 * 1024

# What compiles slowly although its text is short. Measured, in seconds: 7 for a multipleOf of 1,000,003 (one state of
# an automaton for each remainder), 10 for 400 patternProperties (every two are compared), 1 for 4,000 properties that
# may all be left out (every one may follow every earlier one).
_MAX_MULTIPLE = 10_000
_MAX_PATTERN_PROPERTIES = 10
_MAX_PROPERTIES = 1_000
_MAX_DEPTH = 100
# Whatever else takes long at the gateway is refused there, since the head's step would wait as long.
_MAX_CPU_SECONDS = 0.25
# An automaton grows by what is visited; 50,000 states are some 30 MB. The other limits are the library's own: they end
# a mask after some 15 ms.
_LIMITS = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)

# Bytes that only one text can begin with are not forced in one fixed tokenization: every piece that fits is allowed.
_OPTIONS = '%llguidance {"no_forcing": true}\n'
# Where JSON allows space: one blank, or a line end with an indent. A model cannot stay in it for ever.
_JSON_OPTIONS = {"whitespace_pattern": r" |\n {0,32}"}

_TOO_LARGE = "it is too large, or too many readings of it must be followed at once"
# What the library says (searched for), and how a caller is told.
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


class Matcher:
    """One sequence's way through its constraint. Ids of the output are pushed in their order; pushing the same ids
    into a new matcher gives the same state. Not for two threads at once.

    `failure` is "" as long as all is well. Once it says why the text cannot be followed further (a limit of the
    library, or an id was pushed that was not allowed), the text can only end, unfinished as it is.
    """

    def __init__(self, walker: LLMatcher, vocab_size: int, eos_ids: list[int]) -> None:
        self._walker, self._vocab_size, self._eos_ids = walker, vocab_size, eos_ids
        self._ended = False
        self.failure = ""

    def allowed(self) -> NDArray[np.bool_]:
        """Which ids may be drawn next: a mask of its own for the caller, bool [V], never all false.

        End-of-sequence ids where the text is complete; they alone where nothing can follow, and ever after.
        """
        if not self._ended and not self.failure:
            bits = self._walker.compute_bitmask()
            if not self._walker.is_error():
                packed = np.frombuffer(bits, np.uint8)
                return np.unpackbits(packed, count=self._vocab_size, bitorder="little").view(np.bool_)
            self.failure = _reason(self._walker.get_error())
        mask = np.zeros(self._vocab_size, np.bool_)
        mask[self._eos_ids] = True
        return mask

    def push(self, token_id: int) -> None:
        """Take the id that was drawn. Never raises: an id that was not allowed becomes the `failure`."""
        if self._ended or self.failure:
            return
        if token_id in self._eos_ids:
            self._ended = True
        elif not 0 <= token_id < self._vocab_size:
            self.failure = f"{token_id} is no id of this vocabulary"
        elif not self._walker.consume_token(token_id):
            self.failure = _reason(self._walker.get_error())


class Constraints:
    """Makes matchers for one model's vocabulary. May be shared between threads.

    JSON comes without space around the document; inside, where JSON allows space, there is at most one blank, or a line
    end with up to 32 blanks. Properties come in the schema's order, those it does not name last, and the names of the
    latter may repeat. A regular expression (Rust's syntax) means the whole text, with or without ^ and $. A schema that
    only an endless text fits is not found out; its outputs run to max_tokens.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_ids: Iterable[int],
        *,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`vocab_size` (V) may exceed the tokenizer's: ids beyond are never part of a text, nor are control ids,
        <unk> and `eos_ids`. Any of `eos_ids` ends a text (none: the tokenizer's). Takes 0.1 s and 13 MB for 32,000 ids.
        """
        assert vocab_size >= tokenizer.vocab_size
        self._vocab_size, self._cpu_clock = vocab_size, cpu_clock
        self._eos_ids = sorted(set(eos_ids)) or [tokenizer.eos_id]
        silent = {tokenizer.unk_id, *self._eos_ids}
        # A control piece has no bytes already. An id without bytes can never be part of a text.
        pieces = [b"" if i in silent else tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        pieces += [b""] * (vocab_size - tokenizer.vocab_size)
        vocabulary = SimpleNamespace(
            tokens=pieces, eos_token_id=self._eos_ids[0], bos_token_id=None, special_token_ids=[]
        )
        self._tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=vocab_size, eos_token=self._eos_ids)
        # n outputs, and often many requests, share a constraint. Few are kept: a large one holds up to 20 MB.
        self._compiled = lru_cache(maxsize=16)(self._compile)
        self._verdict = lru_cache(maxsize=128)(self._judge)

    def check(self, constraint: Constraint) -> None:
        """Raise ValueError with a sentence for the API's caller if this cannot be used.

        Takes milliseconds for what is usual, a second or two for the worst that is known; never in the head.
        """
        if verdict := self._verdict(constraint):
            raise ValueError(verdict)

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the text's beginning. `check` comes first, elsewhere; errors: its ValueError."""
        return Matcher(self._compiled(constraint).deep_copy(), self._vocab_size, self._eos_ids)

    def _judge(self, constraint: Constraint) -> str:
        """What is wrong with it, or ""."""
        started = self._cpu_clock()
        try:
            matcher = Matcher(self._compile(constraint), self._vocab_size, self._eos_ids)
        except ValueError as error:
            return str(error)
        for _ in range(4):  # what is too ambiguous, or fits no text, shows at the latest after the opening bracket
            allowed = matcher.allowed()
            allowed[self._eos_ids] = False
            if matcher.failure or not allowed.any():
                break
            matcher.push(int(allowed.argmax()))
        if matcher.failure:
            return _sentence(constraint.kind, matcher.failure)
        if self._cpu_clock() - started > _MAX_CPU_SECONDS:
            return _sentence(constraint.kind, "it takes too long to compile; use a smaller one")
        return ""

    def _compile(self, constraint: Constraint) -> LLMatcher:
        try:
            grammar = _grammar(constraint)
        except ValueError as error:
            raise ValueError(_sentence(constraint.kind, str(error))) from None
        walker = LLMatcher(self._tokenizer, grammar, log_level=0, limits=_LIMITS)
        if walker.is_error():
            raise ValueError(_sentence(constraint.kind, _reason(walker.get_error())))
        return walker


def _grammar(constraint: Constraint) -> str:
    """The constraint in the library's own language; ValueError with a reason if it is refused before that."""
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
        return f"{_OPTIONS}start: %json {_schema(text)}"
    if re.sub(r"\\.", "", text, flags=re.DOTALL).endswith("\\"):
        raise ValueError("it ends in a lone backslash")
    # Slashes delimit it in that language; written as code points they cannot end it.
    slashless = re.sub(r"\\.|/", lambda found: r"\x2f" if found[0][-1] == "/" else found[0], text, flags=re.DOTALL)
    return f"{_OPTIONS}start: /{slashless}/"


def _schema(text: str) -> str:
    """The schema in JSON of our own writing, with our options in it."""
    try:
        schema = json.loads(text)
        json.dumps(schema, allow_nan=False, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:
        raise ValueError("it holds a number out of range, or a lone surrogate") from None
    except RecursionError:
        raise ValueError(f"it nests deeper than {_MAX_DEPTH}") from None
    if schema is True:
        schema = {}
    if schema is False:
        raise ValueError("no text fits it: it is false")
    if not isinstance(schema, dict):
        raise ValueError("it is neither an object nor a boolean")
    if "x-guidance" in schema:  # the library's, and would replace our options
        raise ValueError("the keyword x-guidance is not supported")
    _check_sizes(schema)
    return json.dumps(schema | {"x-guidance": _JSON_OPTIONS})


def _check_sizes(schema: object) -> None:
    """Refuse what would compile for seconds. Looks at every value, data under `const` and `default` included."""
    counts, multiple = {"properties": 0, "patternProperties": 0}, 1
    todo: list[tuple[object, int]] = [(schema, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"it nests deeper than {_MAX_DEPTH}")
        if isinstance(value, list):
            todo += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            todo += [(item, depth + 1) for item in value.values()]
            for keyword in counts:
                counts[keyword] += len(value[keyword]) if isinstance(value.get(keyword), dict) else 0
            step = value.get("multipleOf")
            if isinstance(step, int | float) and step > 0:
                # Zeros at the end cost nothing, digits after the point as much as others; all steps may meet in one.
                digits = Decimal(str(step + 0)).normalize().as_tuple().digits
                multiple = math.lcm(multiple, int("".join(map(str, digits))))
    for keyword, most in (("properties", _MAX_PROPERTIES), ("patternProperties", _MAX_PATTERN_PROPERTIES)):
        if counts[keyword] > most:
            raise ValueError(f"it has {counts[keyword]} {keyword}, and {most} are the most")
    if multiple > _MAX_MULTIPLE:
        raise ValueError(f"its multipleOf have a common multiple above {_MAX_MULTIPLE} (zeros at the end not counted)")


def _sentence(kind: ConstraintKind, reason: str) -> str:
    what = "regular expression" if kind is ConstraintKind.REGEX else "JSON schema"
    text = f"The {what} cannot be used: {reason}."
    return text if len(text) <= _MAX_SENTENCE else f"{text[: _MAX_SENTENCE - 2]}…."


def _reason(error: str) -> str:
    """The library's message, without what is about its own grammar and its stack."""
    for pattern, saying in _SAYINGS:
        if found := re.search(pattern, error):
            return found.expand(saying)
    line = error.partition("\n")[0]
    return re.sub(r"^at \d+\(\d+\): |failed to compile JSON schema: |invalid regex .* \(in regex\): ", "", line)
