"""Generators of structured text: arithmetic with worked answers, Python-like code, recipes."""

from collections.abc import Callable
from random import Random
from typing import Final

from model.demo import words

ITEMS: Final = ("apples", "books", "marbles", "stamps", "eggs", "pencils", "cards", "shells")


def _add_worked(rng: Random) -> str:
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    return (
        f"What is {a} + {b}? Tens: {a // 10 * 10} + {b // 10 * 10} = {tens}. "
        f"Ones: {a % 10} + {b % 10} = {ones}. Sum: {tens} + {ones} = {a + b}. Answer: {a + b}"
    )


def _times_worked(rng: Random) -> str:
    a, b = rng.randint(11, 39), rng.randint(2, 9)
    tens, ones = a // 10 * 10, a % 10
    return (
        f"What is {a} * {b}? {tens} * {b} = {tens * b} and {ones} * {b} = {ones * b}. "
        f"Sum: {tens * b} + {ones * b} = {a * b}. Answer: {a * b}"
    )


def _problem(rng: Random) -> str:
    name, he, _ = rng.choice(words.NAMES)
    item, a, b = rng.choice(ITEMS), rng.randint(10, 40), rng.randint(2, 9)
    start = he.capitalize()
    return rng.choice(
        (
            f"{name} has {a} {item}. {start} buys {b} more. Now {he} has {a} + {b} = {a + b} {item}.",
            f"{name} has {a} {item}. {start} gives away {b}. Now {he} has {a} - {b} = {a - b} {item}.",
            f"{name} fills {b} boxes with 3 {item} each. That makes {b} * 3 = {b * 3} {item}.",
        )
    )


def _simple(rng: Random) -> str:
    a, b = rng.randint(1, 20), rng.randint(1, 20)
    if a < b:
        a, b = b, a
    c, d = rng.randint(2, 12), rng.randint(2, 12)
    return rng.choice((f"{a} + {b} = {a + b}", f"{a} - {b} = {a - b}", f"{c} * {d} = {c * d}", f"{c * d} / {d} = {c}"))


def _table(rng: Random) -> str:
    n = rng.randint(2, 12)
    rows = [f"{i} * {n} = {i * n}" for i in range(1, rng.randint(5, 12) + 1)]
    return f"The table of {n}:\n" + "\n".join(rows)


def _counting(rng: Random) -> str:
    step, start = rng.randint(1, 10), rng.randint(0, 9)
    row = [str(start + step * i) for i in range(rng.randint(6, 12))]
    return f"Count in steps of {step} from {start}: " + ", ".join(row)


def arithmetic(rng: Random) -> str:
    """A sheet of sums, all of them right, most of one kind."""
    makers: list[Callable[[Random], str]] = [_add_worked, _times_worked, _problem, _simple, _counting]
    if rng.random() < 0.2:
        return _table(rng)
    main = rng.choice([*makers, _simple])
    count = rng.choice((2, 3, 4, 6, 8, 12)) * (2 if main is _simple else 1)
    return "\n".join(main(rng) if rng.random() < 0.85 else rng.choice(makers)(rng) for _ in range(count))


# fmt: off
VERBS: Final = ("check", "count", "load", "print", "save", "sort")
NOUNS: Final = tuple(
    (noun, noun + "s")
    for noun in ("user", "order", "item", "file", "line", "word", "node", "point", "task", "page")
)
FIELDS: Final = ("name", "size", "price", "value", "index", "length", "weight", "score")
FOLDS: Final = (
    ("total", "0", "total += {s}.{f}", "sum"),
    ("count", "0", "count += 1", "number"),
    ("product", "1", "product *= {s}.{f}", "product"),
)
# fmt: on


def _fold(rng: Random) -> str:
    (s, p), f = rng.choice(NOUNS), rng.choice(FIELDS)
    var, zero, step, what = rng.choice(FOLDS)
    test = f"        if {s}.{f} > {rng.choice((0, 1, 10, 100))}:\n    " if rng.random() < 0.5 else ""
    return (
        f'def {var}_{f}({p}):\n    """Return the {what} over all {p}."""\n    {var} = {zero}\n'
        f"    for {s} in {p}:\n{test}        {step.format(s=s, f=f)}\n    return {var}\n"
    )


def _filter(rng: Random) -> str:
    (s, p), f = rng.choice(NOUNS), rng.choice(FIELDS)
    sign, what = rng.choice(((">", "large"), ("<", "small"), ("==", "equal")))
    return (
        f'def {what}_{p}({p}, limit):\n    """Keep the {p} whose {f} is {what}."""\n'
        f"    return [{s} for {s} in {p} if {s}.{f} {sign} limit]\n"
    )


def _class(rng: Random) -> str:
    s, (f, g) = rng.choice(NOUNS)[0], rng.sample(FIELDS, 2)
    return (
        f'class {s.capitalize()}:\n    """A {s} with a {f} and a {g}."""\n\n'
        f"    def __init__(self, {f}, {g}):\n        self.{f} = {f}\n        self.{g} = {g}\n\n"
        f"    def get_{f}(self):\n        return self.{f}\n\n"
        f"    def set_{g}(self, {g}):\n        if {g} is None:\n"
        f'            raise ValueError("{g} is missing")\n        self.{g} = {g}\n'
    )


def _best(rng: Random) -> str:
    (s, p), f = rng.choice(NOUNS), rng.choice(FIELDS)
    word, sign = rng.choice((("max", ">"), ("min", "<")))
    return (
        f'def {word}_{f}({p}):\n    """Return the {s} with the {word}imum {f}."""\n    best = None\n'
        f"    for {s} in {p}:\n        if best is None or {s}.{f} {sign} best.{f}:\n"
        f"            best = {s}\n    return best\n"
    )


def _main(rng: Random) -> str:
    (s, p), verb = rng.choice(NOUNS), rng.choice(VERBS)
    return (
        f'def {verb}_{p}(path):\n    """{verb.capitalize()} the {p}."""\n    {p} = read_{p}(path)\n'
        f"    for index, {s} in enumerate({p}):\n        print(index, {s})\n    return len({p})\n\n\n"
        f'if __name__ == "__main__":\n    {verb}_{p}("{p}.txt")\n'
    )


def code(rng: Random) -> str:
    """A small Python module of one to seven definitions."""
    imports = rng.sample(("math", "os", "sys", "json", "random", "time"), rng.randint(0, 2))
    head = "".join(f"import {name}\n" for name in sorted(imports)) + ("\n\n" if imports else "")
    makers: list[Callable[[Random], str]] = [_fold, _filter, _class, _best]
    parts = [rng.choice(makers)(rng) for _ in range(rng.choice((1, 1, 2, 3, 4, 6)))]
    if rng.random() < 0.3:
        parts.append(_main(rng))
    return head + "\n\n".join(parts)


# fmt: off
BASES: Final = (("soup", "pot", "simmer"), ("stew", "pot", "simmer"), ("salad", "bowl", "rest"),
                ("pie", "tin", "bake"), ("bread", "tin", "bake"), ("curry", "pan", "simmer"),
                ("omelette", "pan", "fry"))
SOLIDS: Final = ("carrots", "onions", "potatoes", "mushrooms", "tomatoes", "leeks", "beans", "peppers",
                 "lentils")
EXTRAS: Final = ("salt", "black pepper", "olive oil", "lemon juice", "fresh parsley", "butter", "garlic",
                 "thyme")
# fmt: on


def recipe(rng: Random) -> str:
    """A recipe: title, list of ingredients, numbered steps that use exactly those ingredients."""
    base, vessel, cook = rng.choice(BASES)
    solids, extras = rng.sample(SOLIDS, rng.randint(2, 4)), rng.sample(EXTRAS, rng.randint(2, 4))
    title = (
        solids[0].removesuffix("oes").capitalize() + "o"
        if solids[0].endswith("oes")
        else (solids[0].removesuffix("s").capitalize())
    )
    lines = [f"# {title} {base} for {rng.choice(words.NUMBERS[:5])}", "", "Ingredients:"]
    lines += [f"- {rng.randrange(100, 600, 50)} g {name}" for name in solids]
    lines += [f"- {rng.choice(('1 spoon', '2 spoons', '3 spoons'))} of {name}" for name in extras]
    steps = [f"Wash the {name} and cut them into {rng.choice(('small', 'thin', 'large'))} pieces." for name in solids]
    steps.append(f"Warm the {vessel} and add the {extras[0]}.")
    steps.append(f"Put in the {' and the '.join(solids[:2])}.")
    steps += [f"Stir in the {name}." for name in extras[1:]]
    steps.append(f"Let it {cook} for {rng.randrange(10, 65, 5)} minutes.")
    steps.append(rng.choice((f"Serve the {base} hot.", f"Serve the {base} with fresh bread.", "Taste it and enjoy.")))
    return "\n".join([*lines, "", "Steps:", *(f"{i}. {step}" for i, step in enumerate(steps, 1))])
