"""The contents of a bundle, written down and checked: version, size and hash of every file. Standard library only."""

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from benchmarks.gpu.bundle import wheels

MOST_BYTES = 50 * 2**20  # a machine takes 64 MiB with the checkout
MANIFEST = "manifest.json"


class Entry(TypedDict):
    """The manifest's entry of a file."""

    version: str
    bytes: int
    sha256: str


def seal(folder: Path, most: int = MOST_BYTES) -> dict[str, Entry]:
    """Write the manifest: version, size and hash by file. A bundle too large to be carried is refused."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    total = sum(path.stat().st_size for path in files)
    if total > most:
        largest = sorted(files, key=lambda path: -path.stat().st_size)[:4]
        names = ", ".join(f"{path.name} {mib(path.stat().st_size)}" for path in largest)
        raise ValueError(
            f"{folder} has {mib(total)}, more than the {mib(most)} that can be carried. Its largest: {names}. "
            "Leave out more of Ray (RAY_UNUSED in wheels.py), or what the machine has (PRESENT in bundle/__main__.py)"
        )
    manifest = {path.relative_to(folder).as_posix(): described(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest


def described(path: Path) -> Entry:
    """A file's line in the manifest."""
    version = wheels.named(path)[1] if path.suffix == ".whl" else ""
    content = path.read_bytes()
    return {"version": version, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def checked(folder: Path) -> dict[str, Entry]:
    """The manifest of a bundle that is whole."""
    try:
        manifest: dict[str, Entry] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"no bundle in {folder}, or one half made: python -m benchmarks.gpu.bundle make") from None
    for name, entry in manifest.items():
        if not (folder / name).is_file() or described(folder / name) != entry:
            raise ValueError(f"{folder / name} is not what the manifest says: make the bundle anew")
    return manifest


def mib(count: float) -> str:
    """A size for people."""
    return f"{count / 2**20:.1f} MiB"
