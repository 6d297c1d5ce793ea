"""Numbers of a JSON schema that the generator follows exactly: it keeps them as doubles and as 64-bit integers.

A number that it would change is refused. A bound of integers beyond 2**53 moves inwards to the nearest number that it
can keep, so that every output fits the schema, at the price of at most 1,024 values at the very edge.
"""

import math
from decimal import Decimal

LARGEST = (1 << 63) - 1024  # the largest integer that is a double and fits 64 bits with its sign


def parse_float(text: str) -> float:
    """A number with a point or an exponent; ValueError if a double cannot hold it exactly."""
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise ValueError(f"the number {text[:40]} has more digits than can be kept exactly")
    return value


def check_constant(value: object) -> None:
    """ValueError if the generator would write another number than one under `const` or `enum`."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, list):
            todo += item
        elif isinstance(item, dict):
            todo += item.values()
        elif type(item) is int and (abs(item) > LARGEST or int(float(item)) != item):
            raise ValueError(f"the number {str(item)[:40]} has more digits than can be kept exactly; use a string")


def lowest(bound: int) -> int:
    """The lower bound to use instead of `bound`; ValueError if no number above it can be kept."""
    if bound > LARGEST:
        raise ValueError(f"the bound {str(bound)[:40]} is larger than can be kept exactly")
    bound = max(bound, -LARGEST)
    near = int(float(bound))
    return near if near >= bound else int(math.nextafter(near, math.inf))


def highest(bound: int) -> int:
    return -lowest(-bound)


def check_multiples(steps: list[int | float], most: int) -> None:
    """ValueError if steps under `multipleOf` cannot be followed exactly, or need an automaton of more than `most`
    states: one for each remainder of their common multiple, without its trailing zeros.
    """
    multiple, scaled = 1, list[Decimal]()
    for step in steps:
        number = Decimal(str(step))
        if number <= 0:
            raise ValueError("multipleOf must be above 0")
        digits = int("".join(map(str, number.normalize().as_tuple().digits)))
        multiple = math.lcm(multiple, digits)
        if number != _as_read(float(step)):
            raise ValueError(f"multipleOf {step} cannot be followed exactly")
        scaled.append(number)
    if multiple > most:
        raise ValueError(f"its multipleOf have a common multiple above {most} (zeros at the end not counted)")
    finest = min((int(n.as_tuple().exponent) for n in scaled), default=0)
    product = math.prod({int(n.scaleb(-min(finest, 0))) for n in scaled})
    if product >= 1 << 32:
        raise ValueError("its multipleOf are too large, or too many, to be followed exactly")


def _as_read(value: float) -> Decimal:
    """A double as the generator reads it: multiplied by 10, and rounded each time, until it is whole."""
    places = 0
    while value % 1 and places < 30:
        value, places = value * 10, places + 1
    return Decimal(int(value)).scaleb(-places)
