"""Both steps in a rehearsal on the CPU; and the arithmetic of row counts, which only a GPU exercises fully."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.findings import Findings, failed, read
from benchmarks.gpu.measure.row_counts import TILE, kinds, spans, tile_seam
from benchmarks.gpu.measure.timing import copy_bandwidth, median_ms
from benchmarks.gpu.steps import attention, invariance


def rehearse(run: Callable[[Bench], None], folder: Path, until: float = float("inf")) -> list[dict[str, Any]]:
    run(Bench(torch.device("cpu"), False, folder, Findings(folder, "step"), until))
    return read(folder)


def rows(records: list[dict[str, Any]], table: str) -> list[dict[str, Any]]:
    return [r["cells"] for r in records if r["kind"] == "row" and r["table"] == table]


def notes(records: list[dict[str, Any]]) -> list[str]:
    return [r["text"] for r in records if r["kind"] == "note"]


def test_attention_is_checked_timed_and_drawn(tmp_path: Path) -> None:
    found = rehearse(attention.run, tmp_path)
    assert failed(found) == []
    assert [r["name"].split()[0] for r in found if r["kind"] == "check"] == ["sdpa", "eager"] * 2
    table = rows(found, "generation of one sequence, 2 layers")
    assert [(r["prompt"], r["window"], r["backend"]) for r in table] == [
        (length, window, name) for length in (16, 32) for window in ("none", 8) for name in ("sdpa", "eager")
    ]
    assert all(isinstance(r["prompt and 4 tokens, ms"], float) for r in table)
    assert "flash-attention is left out: no CUDA device" in notes(found)
    assert (tmp_path / attention.PICTURE).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(f".{attention.PICTURE}*"))


def test_attention_without_time_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = rehearse(attention.run, tmp_path, until=0.0)
    assert rows(found, "generation of one sequence, 2 layers") == []
    assert sum(note.startswith("left out: ") for note in notes(found)) == 8


def test_invariance_has_every_product_function_and_backend(tmp_path: Path) -> None:
    found = rehearse(invariance.run, tmp_path)
    assert failed(found) == []
    for table in (invariance.PRODUCTS, invariance.TILES):
        assert len(rows(found, table)) == 3 * 6, table
    assert len(rows(found, invariance.FUNCTIONS)) == 3 * 3
    assert [r["backend"] for r in rows(found, invariance.ATTENTION)] == ["sdpa", "eager"] * 2
    assert {r["decodes alone"] for r in rows(found, invariance.ATTENTION)} == {"64 of 64"}
    assert "identical tokens" in notes(found)[-1]


def test_invariance_without_time_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = rehearse(invariance.run, tmp_path, until=0.0)
    assert [r for r in found if r["kind"] == "row"] == []
    assert "of what was looked at" in notes(found)[-1]


def test_row_counts_are_grouped_by_the_bits_they_give() -> None:
    def seams(x: torch.Tensor) -> torch.Tensor:
        return x * (1 if len(x) == 1 else 2 if len(x) < 4 else 3 if len(x) == 5 else 1)

    counts = (1, 2, 3, 4, 5, 6, 8)
    groups = kinds(seams, torch.arange(1.0, 17).view(8, 2), counts)  # counts above 4 leave rows over
    assert groups == [[1, 4, 6, 8], [2, 3], [5]]
    assert [spans(group, counts) for group in groups] == ["1, 4, 6-8", "2-3", "5"]


def test_a_tile_that_minds_place_or_neighbours_is_found_out() -> None:
    x = torch.arange(1.0, 3 * TILE + 1).view(TILE, 3)
    assert tile_seam(lambda x: x * 2, x) == ""
    assert tile_seam(lambda x: x + torch.arange(TILE)[:, None], x) == "moved by 1"
    assert tile_seam(lambda x: x + x.abs().max(), x) == "row 0 among zeros"


def test_times_are_medians_after_a_warm_up(tmp_path: Path) -> None:
    bench, calls = Bench(torch.device("cpu"), False, tmp_path, Findings(tmp_path, "step")), list[int]()
    assert median_ms(lambda: calls.append(1), bench, repeat=5, warmup=2) >= 0
    assert len(calls) == 7
    assert copy_bandwidth(bench) > 0
