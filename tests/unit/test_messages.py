"""docs/messages.md has every metric and every line of the log, and nothing else."""

import ast
import re
from collections.abc import Iterator

from cluster.observe.metrics import TABLE
from tests.source_tree import ROOT, sources

_LEVELS = {"info": "info", "warning": "warning", "error": "error", "exception": "error", "critical": "critical"}
_PAGE = (ROOT / "docs" / "messages.md").read_text(encoding="utf-8")


def rows() -> Iterator[list[str]]:
    for line in _PAGE.splitlines():
        if line.startswith("| ") and not line.startswith(("| ---", "| name", "| level")):
            yield [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


def lines_of_the_code() -> Iterator[tuple[str, str]]:
    """Level and text of each call of a logger, with ... for what is filled in."""
    for source in sources("cluster", "actors", "model"):
        for node in ast.walk(ast.parse((ROOT / source).read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            level, owner = _LEVELS.get(node.func.attr), node.func.value
            if level and isinstance(owner, ast.Name) and owner.id.lstrip("_") in ("log", "audit"):
                assert isinstance(node.args[0], ast.Constant), (
                    f"{source}: a line is a text of its own, filled in by log"
                )
                yield level, re.sub(r"%[.\d]*[a-z]", "...", str(node.args[0].value)).replace(": ...: ...", ": ...")


def test_every_line_of_the_log_is_explained() -> None:
    explained = {(row[0], row[1].strip("`")) for row in rows() if row[1].startswith("`")}
    said = set(lines_of_the_code())
    assert said - explained == set(), "add these to docs/messages.md, with what an operator does about them"
    assert explained - said == set(), "docs/messages.md explains lines that nobody says"


def test_every_metric_is_explained() -> None:
    explained = {row[0]: row[1:3] for row in rows() if not row[1].startswith("`")}
    assert explained.keys() == {name for name, *_ in TABLE}
    for name, kind, _, labels, _ in TABLE:
        assert explained[name] == [kind, ", ".join(labels.split())], name
