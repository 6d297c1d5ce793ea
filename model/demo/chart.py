"""Draw the loss curve of the model card."""

import csv
from pathlib import Path

from matplotlib import pyplot as plt


def draw_losses(log: Path, target: Path) -> None:
    """Read train_log.csv (step, tokens, train_loss, val_loss) and write the curve as a PNG."""
    plt.switch_backend("agg")  # no window, also where a display is at hand
    with log.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(
        [int(row["tokens"]) / 1e6 for row in rows],
        [float(row["train_loss"]) for row in rows],
        label="training (mean since the last point)",
        linewidth=1,
    )
    held = [row for row in rows if row["val_loss"]]
    axes.plot(
        [int(row["tokens"]) / 1e6 for row in held],
        [float(row["val_loss"]) for row in held],
        label="held-out text",
        linewidth=2,
    )
    axes.set(
        title="eightwinds demo checkpoint",
        xlabel="tokens seen (millions)",
        ylabel="cross-entropy (nats per token)",
        yscale="log",
    )
    ticks = (0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
    axes.set_yticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=100)
    plt.close(figure)
