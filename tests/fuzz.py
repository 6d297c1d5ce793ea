"""Requests that no sane client sends: raw bytes, random wire format, and valid requests with one thing gone wrong."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from protos.eightwinds.v1 import inference_pb2 as pb

SERVICE = "/eightwinds.v1.InferenceService/"
METHODS = {
    "Generate": pb.GenerateRequest,
    "GenerateStream": pb.GenerateRequest,
    "Tokenize": pb.TokenizeRequest,
    "Detokenize": pb.DetokenizeRequest,
    "ListModels": pb.ListModelsRequest,
}

FLOATS = [
    0.0,
    -0.0,
    1.0,
    2.0,
    2.0000002,
    -2.0,
    1e-30,
    -1e-30,
    1e38,
    -1e38,
    float("inf"),
    float("-inf"),
    float("nan"),
    0.5,
]
INTS = [0, 1, -1, 2, 8, 9, 20, 21, 100, -100, 101, 2047, 2048, 4096, 2**31 - 1, -(2**31)]
LONGS = [*INTS, 2**63 - 1, -(2**63), 2**40]
TEXTS = [
    "",
    " ",
    "\x00",
    "\n\n",
    "</s>",
    "a" * 1001,
    "\U0001f9c2\u200d\u05d0\u0301",
    "%s%n{}",
    "../../etc/passwd",
    "\ufffd" * 40,
    "demo",
    "x" * 5000,
]
SCHEMAS = [
    "",
    "{",
    "[]",
    "null",
    "true",
    "false",
    '{"type": "object"}',
    '{"type": "integer", "minimum": 3, "maximum": 1}',
    '{"$ref": "#"}',
    '{"$ref": "https://example.org/schema"}',
    '{"type": "nonsense"}',
    '{"enum": []}',
    '{"allOf": [{"type": "string"}, {"type": "integer"}]}',
    '{"type": "array", "items": {"$ref": "#"}, "minItems": 1}',
    '{"type": "string", "pattern": "("}',
    '{"type": "array", "maxItems": 100000000}',
    "[" * 3000,
    '{"a":' * 2000,
]
REGEXES = [
    "",
    "(",
    "a*",
    "[^a]{3}",
    "(a|a)*b",
    "(?=x)",
    "\\1",
    "a{1000000}",
    "((a{100}){100}){100}",
    "^$",
    "[\\x00-\\xff]",
    "\\p{Han}+",
]


@dataclass(frozen=True, slots=True)
class Attack:
    """Bytes for a method. `deadline` in seconds; with `leaves` the client goes away while it waits."""

    method: str
    message: bytes
    deadline: float
    leaves: bool
    request_id: str


def attack(seed: int, number: int) -> Attack:
    """The request of this number, always the same."""
    rng = random.Random(f"{seed}/{number}")
    method = rng.choice(["Generate", "GenerateStream", "Generate", "GenerateStream", *METHODS])
    kind = rng.choice([_noise, _wire, _mutated_bytes, _mutated_field, _mutated_field, _mutated_field, _spliced])
    return Attack(
        method,
        kind(rng, method),
        rng.choice([2.0, 2.0, 2.0, 2.0, 0.05, 0.001]),
        rng.random() < 0.05,
        rng.choice(["", "", "", "a", "~" * 256, "~" * 257, " ", "<script>"]),
    )


def _noise(rng: random.Random, method: str) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 2, 10, 100, 1000, 20_000]))


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 70) - 1  # up to ten bytes, one bit more than fits
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def _wire(rng: random.Random, method: str, depth: int = 0) -> bytes:
    """Well-formed fields of random numbers and types, nested at random; some lengths lie."""
    out = b""
    for _ in range(rng.randint(0, 6)):
        number, kind = (
            rng.choice([rng.randint(1, 12), rng.randint(1, 2**29 - 1)]),
            rng.choice([0, 0, 1, 2, 2, 2, 3, 4, 5, 7]),
        )
        out += _varint(number << 3 | kind)
        if kind == 0:
            out += _varint(rng.choice(LONGS))
        elif kind in (1, 5):
            out += rng.randbytes(8 if kind == 1 else 4)
        elif kind == 2:
            inner = (
                _wire(rng, method, depth + 1) if depth < 8 and rng.random() < 0.7 else rng.randbytes(rng.randint(0, 20))
            )
            out += _varint(len(inner) + (rng.choice([-1, 1, 2**31]) if rng.random() < 0.05 else 0)) + inner
    return out


def _mutated_bytes(rng: random.Random, method: str) -> bytes:
    raw = bytearray(_valid(rng, method).SerializeToString())
    for _ in range(rng.randint(1, 4)):
        if not raw:
            break
        at = rng.randrange(len(raw))
        match rng.randrange(4):
            case 0:
                raw[at] ^= 1 << rng.randrange(8)
            case 1:
                del raw[at:]
            case 2:
                raw[at:at] = rng.randbytes(rng.randint(1, 4))
            case _:
                del raw[at]
    return bytes(raw)


def _spliced(rng: random.Random, method: str) -> bytes:
    """Two messages, one after the other: protobuf merges them."""
    other = rng.choice(list(METHODS))
    return bytes(_valid(rng, method).SerializeToString() + _valid(rng, other).SerializeToString())


def _mutated_field(rng: random.Random, method: str) -> bytes:
    message = _valid(rng, method)
    for _ in range(rng.randint(1, 3)):
        _mutate(rng, message)
    return bytes(message.SerializeToString())


def _mutate(rng: random.Random, message: Any) -> None:
    """Give a random field, at a random depth, a value from the edge."""
    field = rng.choice(message.DESCRIPTOR.fields)
    label, value = field.is_repeated, getattr(message, field.name)
    if field.type == field.TYPE_MESSAGE and field.message_type.GetOptions().map_entry:
        value[rng.choice(INTS)] = rng.choice(FLOATS)
    elif field.type == field.TYPE_MESSAGE:
        if not label and rng.random() < 0.2:
            message.ClearField(field.name)
            return
        inner = value.add() if label else value
        inner.SetInParent()
        if inner.DESCRIPTOR.fields:
            _mutate(rng, inner)
    else:
        new = _edge(rng, field)
        if label:
            value.extend([new] * rng.choice([1, 2, 17, 300]))
        else:
            setattr(message, field.name, new)


def _edge(rng: random.Random, field: Any) -> Any:
    edges: dict[int, Callable[[], Any]] = {
        field.CPPTYPE_FLOAT: lambda: rng.choice(FLOATS),
        field.CPPTYPE_INT32: lambda: rng.choice(INTS),
        field.CPPTYPE_INT64: lambda: rng.choice(LONGS),
        field.CPPTYPE_BOOL: lambda: rng.random() < 0.5,
        field.CPPTYPE_ENUM: lambda: rng.choice([0, 1, 2, 3, 4, 99, -1]),
    }
    special = {"json_schema": SCHEMAS, "regex": REGEXES}
    return (
        rng.choice(special.get(field.name, TEXTS))
        if field.cpp_type == field.CPPTYPE_STRING
        else edges[field.cpp_type]()
    )


def _valid(rng: random.Random, method: str) -> Any:
    """A request with which nothing is wrong, unless it is larger than the context or the whole KV cache."""
    if method == "Detokenize":
        return pb.DetokenizeRequest(token_ids=[rng.randrange(2048) for _ in range(rng.randint(0, 30))])
    if method == "ListModels":
        return pb.ListModelsRequest(page_size=rng.randint(0, 5))
    length = rng.choice([1, 3, 20, 60, 200, 900, 1100, 5000] if rng.random() < 0.2 else [1, 3, 20])
    if rng.random() < 0.5:
        prompt = pb.Prompt(token_ids=pb.TokenIds(ids=[rng.randrange(2048) for _ in range(length)]))
    else:
        prompt = pb.Prompt(text="the wind " * length)
    if method == "Tokenize":
        return pb.TokenizeRequest(prompt=prompt)
    request = pb.GenerateRequest(
        prompt=prompt,
        sampling=pb.Sampling(
            temperature=rng.choice([0.0, 0.7, 2.0]), top_k=rng.choice([0, 1, 50]), seed=rng.randrange(9)
        ),
        stopping=pb.Stopping(max_tokens=rng.randint(1, 6), stop=rng.choice([[], ["a"], ["the", " w"]])),
        n=rng.choice([1, 1, 1, 2, 8]),
        priority=rng.randint(-3, 3),
        user=rng.choice(["", "a", "b"]),
    )
    if rng.random() < 0.3:
        request.output.CopyFrom(
            pb.OutputOptions(logprobs=rng.randint(0, 20), prompt_logprobs=0, token_ids=True, trace=True)
        )
    if rng.random() < 0.05:
        request.constraint.regex = "[a-z ]{1,9}"
    return request
