"""Prints a table and keeps it with the command and machine that made it."""

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def publish(name: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: str = "") -> None:
    """Write `benchmarks/results/NAME.md` and print the same."""
    words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]  # nobody else has that path
    program = Path(sys.argv[0]).resolve().relative_to(RESULTS.parent).with_suffix("")
    module = ".".join(("benchmarks", *(part for part in program.parts if part != "__main__")))
    command = " ".join(["python -m", module, *words])
    text = report(command, title, header, rows, notes)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text, encoding="utf-8")
    print(text, flush=True)


def report(command: str, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: str = "") -> str:
    """The table as Markdown, with command and machine."""
    widths = [max(len(str(row[i])) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(c).rjust(w) for c, w in zip(cells, widths, strict=True)) + " |"

    table = [line(header), "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|", *map(line, rows)]
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    text = [f"# {title}", "", f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {machine}", "", *table, "", notes, ""]
    return "\n".join(text)


def say(text: str) -> None:
    """A line of progress, on standard error."""
    print(text, file=sys.stderr, flush=True)
