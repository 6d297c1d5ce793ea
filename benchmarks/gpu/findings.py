"""The findings of the steps, written down the moment it is known: a log of JSON lines, and a page rendered from it.

The log is only appended to, a line in one write, and the page is replaced whole: a run that is killed at any moment
leaves both valid. Several processes may write to one log.
"""

import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG, PAGE = "results.jsonl", "results.md"
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Findings:
    """One step's pen. Every method writes at once."""

    folder: Path
    step: str

    def fact(self, name: str, value: object) -> None:
        """Something that is so."""
        self._write(kind="fact", name=name, value=value)

    def check(self, name: str, ok: bool, detail: str = "") -> None:
        """Something that must hold, and whether it does."""
        self._write(kind="check", name=name, ok=bool(ok), detail=detail)

    def row(self, table: str, cells: Mapping[str, object]) -> None:
        """A row of a table; the keys of its first row are the table's header."""
        self._write(kind="row", table=table, cells=dict(cells))

    def note(self, text: str) -> None:
        """A sentence for the reader, such as what was left out and why."""
        self._write(kind="note", text=text)

    def begin(self, title: str) -> None:
        """The step starts."""
        self._write(kind="begin", title=title)

    def end(self, outcome: str, seconds: float, why: str = "") -> None:
        """The step has ended: `done`, `failed`, `out of time` or `left out`."""
        self._write(kind="end", outcome=outcome, seconds=round(seconds, 1), why=why)

    def _write(self, **record: object) -> None:
        line = json.dumps({"step": self.step, **record}, default=str) + "\n"
        descriptor = os.open(self.folder / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        _replace(self.folder / PAGE, render(read(self.folder)))


def read(folder: Path) -> list[Record]:
    """Every whole record of a folder's log, oldest first; the last line may be torn if its writer was killed."""
    try:
        lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def failed(records: Iterable[Record]) -> list[str]:
    """Checks that did not hold and steps that failed, each as `step: what`."""
    wrong = []
    for r in records:
        if r["kind"] == "check" and not r["ok"]:
            wrong.append(f"{r['step']}: {r['name']}" + (f" ({r['detail']})" if r["detail"] else ""))
        if r["kind"] == "end" and r["outcome"] == "failed":
            wrong.append(f"{r['step']}: {r['why']}")
    return wrong


def unfinished(records: Iterable[Record]) -> list[str]:
    """Steps that were left out or cut off: `step: outcome`."""
    return [
        f"{r['step']}: {r['outcome']}, {r['why']}"
        for r in records
        if r["kind"] == "end" and r["outcome"] in ("left out", "out of time")
    ]


def render(records: Iterable[Record]) -> str:
    """The page: a summary of the steps, then each step with what it found."""
    steps: dict[str, list[Record]] = {}
    for record in records:
        steps.setdefault(record["step"], []).append(record)
    lines = ["# What the device showed", "", *_summary(steps)]
    for name, found in steps.items():
        lines += ["", f"## {_title(name, found)}", *_section(found)]
    return "\n".join(lines) + "\n"


def _title(name: str, found: Iterable[Record]) -> str:
    return next((f"{name}: {r['title']}" for r in found if r["kind"] == "begin"), name)


def _summary(steps: Mapping[str, list[Record]]) -> list[str]:
    rows = [{"step": name, **_outcome(found)} for name, found in steps.items()]
    return _table(rows) if rows else []


def _outcome(found: Iterable[Record]) -> dict[str, object]:
    found = list(found)
    checks = [r["ok"] for r in found if r["kind"] == "check"]
    end = next((r for r in reversed(found) if r["kind"] == "end"), None)
    state = "under way, or cut off" if end is None else end["outcome"]
    seconds, why = ("", "") if end is None else (end["seconds"], end["why"])
    return {"came to": state, "seconds": seconds, "checks": f"{sum(checks)} of {len(checks)} hold", "why": why}


def _section(found: Iterable[Record]) -> list[str]:
    lines: list[str] = []
    tables: dict[str, list[Mapping[str, object]]] = {}
    found = list(found)
    for r in found:
        match r["kind"]:
            case "fact":
                lines.append(f"- {r['name']}: {r['value']}")
            case "check":
                detail = f": {r['detail']}" if r["detail"] else ""
                lines.append(f"- {'holds' if r['ok'] else '**DOES NOT HOLD**'}: {r['name']}{detail}")
            case "note":
                lines.append(f"- {r['text']}")
            case "row":
                tables.setdefault(r["table"], []).append(r["cells"])
    for title, rows in tables.items():
        lines += ["", f"**{title}**", "", *_table(rows)]
    return ["", *lines] if lines else []


def _table(rows: list[Mapping[str, object]] | list[dict[str, object]]) -> list[str]:
    header = list(dict.fromkeys(key for row in rows for key in row))
    body = ["| " + " | ".join(str(row.get(key, "")).replace("|", "/") for key in header) + " |" for row in rows]
    return ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header), *body]


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")  # several write at the same time
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
