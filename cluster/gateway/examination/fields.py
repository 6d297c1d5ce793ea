"""Counts a message's fields from its tags and lengths: two bytes on the wire may become 80 in memory, or 900."""

from functools import cache

from google.protobuf.descriptor import Descriptor

LEAST_FIELD_BYTES = 2  # of a field: tag, and a value or length


def has_more_fields(raw: bytes, kind: Descriptor, most: int) -> bool:
    """Whether a message of this kind has more than `most` fields, those of inner messages included; a packed list is
    one. Malformed bytes give IndexError, ValueError or False: the parser names them.
    """
    if len(raw) <= most * LEAST_FIELD_BYTES:
        return False
    todo, count = [(0, len(raw), kind)], 0
    while todo:
        at, end, kind = todo.pop()
        inner = _inner(kind)
        while at < end:
            tag, at = _varint(raw, at)
            count += 1
            if count > most:
                return True
            match tag & 7:
                case 0:
                    _, at = _varint(raw, at)
                case 1 | 5 as wire:
                    at += 8 if wire == 1 else 4
                case 2:
                    size, at = _varint(raw, at)
                    if size and (within := inner.get(tag >> 3)) is not None:
                        todo.append((at, min(at + size, end), within))
                    at += size
                case _:
                    return False  # a group; no message of ours has one
    return False


@cache
def _inner(kind: Descriptor) -> dict[int, Descriptor]:
    return {field.number: field.message_type for field in kind.fields if field.message_type is not None}


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and the place after it."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("no number is that long")
