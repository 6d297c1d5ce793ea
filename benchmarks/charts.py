"""Charts of what a benchmark has measured, for docs/performance.md."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

_FOLDER = Path(__file__).parents[1] / "docs" / "charts"
_SIZE = (7, 4)
Point = tuple[float, float]


def lines(
    name: str, title: str, axes: tuple[str, str], series: Mapping[str, Sequence[Point]], logarithmic: bool = True
) -> None:
    """docs/charts/NAME.png: a line of points for each series; both axes are logarithmic, or begin at 0."""
    figure, plot = _canvas(title, axes)
    for label, points in series.items():
        plot.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=4, label=label)
    if logarithmic:
        plot.set_xscale("log", base=2)
        plot.set_yscale("log")
        plot.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        plot.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        plot.minorticks_off()
    else:
        plot.set_xlim(left=0)
        plot.set_ylim(bottom=0)
    ticks = sorted({x for points in series.values() for x, _ in points})
    plot.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    _save(figure, plot, name)


def bars(name: str, title: str, axis: str, parts: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    """docs/charts/NAME.png: a bar for each row, made of its parts one after the other."""
    figure, plot = _canvas(title, (axis, ""))
    left = [0.0] * len(rows)
    for i, part in enumerate(parts):
        lengths = [values[i] for values in rows.values()]
        plot.barh(list(rows), lengths, left=left, label=part, color=plt.get_cmap("tab10")(i))
        left = [at + length for at, length in zip(left, lengths, strict=True)]
    _save(figure, plot, name)


def _canvas(title: str, axes: tuple[str, str]) -> tuple[Any, Any]:
    plt.switch_backend("agg")  # no window, also where a display is at hand
    figure, plot = plt.subplots(figsize=_SIZE)
    plot.set(title=title, xlabel=axes[0], ylabel=axes[1])
    plot.grid(alpha=0.3)
    return figure, plot


def _save(figure: Any, plot: Any, name: str) -> None:
    plot.legend(fontsize="small")
    figure.tight_layout()
    _FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(_FOLDER / f"{name}.png", dpi=100)
    plt.close(figure)
