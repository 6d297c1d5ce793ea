"""A digest of the code that actors run: an actor of an earlier server may run other code than this checkout's."""

import hashlib
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("actors", "model")  # what runs in an actor


def code_digest(root: Path = _ROOT) -> str:
    digest = hashlib.sha256()
    for file in sorted(file for package in _PACKAGES for file in (root / package).rglob("*.py")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]
