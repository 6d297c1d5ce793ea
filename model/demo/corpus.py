"""The training corpus of the demo checkpoint: eight clearly different domains, generated from a seed.

Standard library only and deterministic: the same seed gives the same documents on every machine.
Print a few documents with `python -m model.demo.corpus`.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from model.demo import english, languages, symbols


def _food(rng: Random) -> str:
    return english.fruit(rng) if rng.random() < 0.12 else english.food(rng)


GENERATORS: Final[dict[str, Callable[[Random], str]]] = {
    "food": _food,
    "story": english.story,
    "arithmetic": symbols.arithmetic,
    "code": symbols.code,
    "german": languages.german,
    "spanish": languages.spanish,
    "weather": english.weather,
    "recipe": symbols.recipe,
}
DOMAINS: Final = tuple(GENERATORS)
# Documents differ in length by domain; these shares make the token counts of the domains roughly equal.
SHARES: Final = {
    "food": 1.3,
    "story": 0.9,
    "arithmetic": 1.3,
    "code": 1.0,
    "german": 1.0,
    "spanish": 1.0,
    "weather": 1.0,
    "recipe": 1.0,
}


def documents(seed: int, count: int) -> Iterator[tuple[str, str]]:
    """Yield `count` pairs (domain, text), the domains mixed by `SHARES`."""
    rng = Random(f"eightwinds/{seed}")
    weights = [SHARES[name] for name in DOMAINS]
    for _ in range(count):
        name = rng.choices(DOMAINS, weights)[0]
        yield name, GENERATORS[name](rng)


def main() -> None:
    """Print one document of every domain."""
    for name, generate in GENERATORS.items():
        print(f"===== {name}\n{generate(Random(f'show/{name}'))}\n")


if __name__ == "__main__":
    main()
