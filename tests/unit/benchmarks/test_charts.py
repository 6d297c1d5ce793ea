"""Charts of the benchmarks."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt

from benchmarks import charts

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # of the first series, and of the second


def pixels_of(file: Path) -> dict[tuple[int, ...], int]:
    """How many pixels have each colour."""
    image = np.rint(plt.imread(file)[..., :3] * 255).astype(int).reshape(-1, 3)
    colors, counts = np.unique(image, axis=0, return_counts=True)
    return {tuple(map(int, color)): int(count) for color, count in zip(colors, counts, strict=True)}


@pytest.mark.parametrize("logarithmic", [True, False])
def test_a_line_is_drawn_for_each_series(logarithmic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_FOLDER", tmp_path / "charts")
    series = {"one": [(1.0, 30.0), (8.0, 120.0)], "two": [(1.0, 20.0), (8.0, 700.0)]}
    charts.lines("chart", "Title", ("x", "y"), series, logarithmic)
    assert {BLUE, ORANGE} <= pixels_of(tmp_path / "charts" / "chart.png").keys()


def test_a_part_of_a_bar_is_as_long_as_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_FOLDER", tmp_path)
    charts.bars("chart", "Title", "ms", ("a", "b"), {"few": [10.0, 20.0], "many": [30.0, 60.0]})
    pixels = pixels_of(tmp_path / "chart.png")
    assert pixels[ORANGE] == pytest.approx(2 * pixels[BLUE], rel=0.1)
