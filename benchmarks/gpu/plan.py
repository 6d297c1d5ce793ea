"""Which steps there are, in the order of their worth, and how long each may take."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A module of `benchmarks.gpu.steps`. It may take `limit` seconds; with less than `least` left it is not begun."""

    name: str
    limit: float
    least: float = 5.0


STEPS = (
    Step("facts", 30),
    Step("parity", 110, 15),
    Step("server", 210, 40),
    Step("flash", 110, 15),
    Step("attention", 80, 15),
    Step("layers", 70, 12),
    Step("dispatch", 60, 20),
    Step("invariance", 60, 12),
)


def seconds_for(step: Step, left: float) -> float:
    """How long a step may take when `left` seconds are left of the whole run; 0 if it is not to be begun."""
    return min(step.limit, left) if left >= step.least else 0.0


def chosen(names: list[str]) -> list[Step]:
    """The steps of these names in the plan's order, all of them if none is named; ValueError names what is unknown."""
    known = [step.name for step in STEPS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no step is called {', '.join(unknown)}; there are {', '.join(known)}")
    return [step for step in STEPS if not names or step.name in names]
