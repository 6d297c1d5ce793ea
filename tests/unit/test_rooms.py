"""The rooms of the product: how large they are, and how many ways lead from one to another."""

import statistics
from collections import Counter, defaultdict

import pytest

from tests.source_tree import ROOT, imports, sources

PRODUCT = ("cluster", "actors", "model")
MOST_ARROWS = 20  # between the rooms of cluster/: a map that the eye takes in
MOST_FILES = 12  # of a room, beside its sub-rooms and __init__.py
MOST_LINES = 280
MEDIAN_LINES = 110


def _room(source: str) -> str:
    return source.rpartition("/")[0]


def _product() -> list[str]:
    return [s for s in sources(*PRODUCT) if not s.startswith("model/demo/") and not s.endswith("__init__.py")]


def test_few_arrows_lead_between_the_rooms_of_cluster() -> None:
    """That they all lead downwards, import-linter's contract says (pyproject.toml)."""
    arrows: dict[tuple[str, str], list[str]] = defaultdict(list)
    for source in sources("cluster"):
        here = source.split("/")[1]
        for found in imports(source):
            packages = found.name.split(".")
            if packages[0] == "cluster" and len(packages) > 2 and packages[1] != here and "/" in source[8:]:
                arrows[here, packages[1]].append(found.where)
    listed = "; ".join(f"{a} -> {b}" for a, b in sorted(arrows))
    assert len(arrows) <= MOST_ARROWS, (
        f"{len(arrows)} arrows between the rooms of cluster/: {listed}. Move the shared type to a room that both import"
    )


def test_rooms_stay_small() -> None:
    counts = Counter(_room(source) for source in _product())
    crowded = {room: count for room, count in counts.items() if count > MOST_FILES}
    assert not crowded, f"more than {MOST_FILES} files in {crowded}: find the second thing that the room is about"


@pytest.mark.parametrize("package", PRODUCT)
def test_files_stay_short(package: str) -> None:
    lines = {s: len((ROOT / s).read_text(encoding="utf-8").splitlines()) for s in _product() if s.startswith(package)}
    long = {source: count for source, count in lines.items() if count > MOST_LINES}
    assert not long, f"over {MOST_LINES} lines: {long}. Split by noun"
    assert statistics.median(lines.values()) <= MEDIAN_LINES
