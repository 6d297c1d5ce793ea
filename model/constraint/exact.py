"""Which numbers of a JSON schema the generator follows exactly: it keeps them as doubles and as 64-bit integers. Pure.

A number that it would change is refused. A bound of integers beyond 2**53 is moved inwards to the nearest one that it
can keep, so that what is written fits the schema, at the price of at most 1,024 values at the very edge.
"""

import math
from decimal import Decimal

LARGEST = (1 << 63) - 1024  # the largest integer that is a double and fits 64 bits with its sign


def parse_float(text: str) -> float:
    """A number with a point or an exponent; ValueError if a double would be another one."""
    value = float(text)
    if not math.isfinite(value) or Decimal(repr(value)) != Decimal(text):
        raise ValueError(f"the number {text[:40]} has more digits than can be kept exactly")
    return value


def check_constant(value: object) -> None:
    """ValueError if a number under `const` or `enum` would come out as another one."""
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
    """The lower bound to use instead of `bound`; ValueError if no number that can be kept lies above."""
    if bound > LARGEST:
        raise ValueError(f"the bound {str(bound)[:40]} is larger than can be kept exactly")
    if abs(bound) <= 1 << 53:
        return bound
    bound = max(bound, -LARGEST)
    near = int(float(bound))
    return near if near >= bound else int(math.nextafter(near, math.inf))


def highest(bound: int) -> int:
    """As `lowest`, for an upper bound."""
    return -lowest(-bound)


def check_multiples(steps: list[int | float], most: int) -> None:
    """ValueError if steps under `multipleOf` cannot be followed exactly, or take an automaton of more than `most`
    states: one for each remainder, zeros at the end not counted; all steps may meet in one number.
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
    """A double as the generator takes it apart: times 10 until it is whole, each time rounded."""
    places = 0
    while value % 1 and places < 30:
        value, places = value * 10, places + 1
    return Decimal(int(value)).scaleb(-places)
