"""Wheels for a machine without a network: which ones it lacks, how they are fetched, how Ray's is made small.

Standard library only, like all of what `benchmarks.gpu.bundle` needs.
"""

import csv
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

PYTHON = "3.12"
PLATFORMS = ("2_34", "2_31", "2_28", "2_27", "2_24", "2_17", "2_12", "2_5")  # pip takes each of these by itself only
OLD_PLATFORMS = ("manylinux2014", "manylinux2010", "manylinux1")

# Files that are never loaded by a program that makes actors in Python and asks for no dashboard.
RAY_UNUSED = (
    "ray/jars/",
    "ray/cpp/",
    "ray/dashboard/client/",
    "ray/rllib/",
    "ray/llm/",
    "ray/tune/",
    "ray/train/",
    "ray/serve/",
    "ray/data/",
)

LARGE = 2**20

# A marker that does not hold on Linux with CPython 3.12. One that is not known here counts as holding: the wheel then
# comes along for nothing, which is better than to miss it.
ELSEWHERE = re.compile(
    r"extra ?=="
    r"|(sys_platform|platform_system|os_name) ?== ?['\"](?!linux|Linux|posix)"
    r"|(sys_platform|platform_system|os_name) ?!= ?['\"](linux|Linux|posix)"
    r"|(implementation_name|platform_python_implementation) ?== ?['\"](?!cpython|CPython)"
    r"|python(_full)?_version ?< ?['\"]3\.(\d|1[0-2])\b"
)


def normal(name: str) -> str:
    """A package's name as all its spellings agree on: `Typing_Extensions` -> `typing-extensions`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(wheel: Path) -> tuple[str, str]:
    """Package and version, from the file's name."""
    name, version, *_ = wheel.name.split("-")
    return normal(name), version


def pins(constraints: str) -> dict[str, str]:
    """Versions by package, read from the text of constraints.txt."""
    lines = (line.split("#")[0].strip() for line in constraints.splitlines())
    return {normal(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def required(requirements: Iterable[str]) -> list[str]:
    """The packages that these requirements name, for a machine with Linux and CPython 3.12, without extras."""
    names = []
    for requirement in requirements:
        what, _, marker = requirement.partition(";")
        found = re.match(r"[A-Za-z0-9._-]+", what.strip())
        if found and not ELSEWHERE.search(marker):
            names.append(normal(found[0]))
    return names


def requirements(wheel: Path) -> list[str]:
    """The requirements that a wheel states. Ray's carries other packages' metadata too, deeper down."""
    with zipfile.ZipFile(wheel) as archive:
        own = next(n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
        lines = archive.read(own).decode().split("\n\n")[0].splitlines()
    return [line.removeprefix("Requires-Dist:").strip() for line in lines if line.startswith("Requires-Dist:")]


def lacking(
    wanted: Iterable[str],
    present: Iterable[str],
    needs: Callable[[list[str]], Mapping[str, Iterable[str]]],
) -> list[str]:
    """All packages that must come along, given those wanted and those already there, sorted.

    `needs` gets some packages at a time and says which each of them needs, as `fetch` and `requirements` find out.
    Nothing is asked about what is there: it came with what it needs.

        wanted a, b; present b, d; a needs c, d; c needs nothing -> a, c
    """
    there = {normal(name) for name in present}
    found: set[str] = set()
    fresh = sorted({normal(name) for name in wanted} - there)
    while fresh:
        found |= set(fresh)
        deeper = {normal(name) for names in needs(fresh).values() for name in names}
        fresh = sorted(deeper - there - found)
    return sorted(found)


def fetch(names: Iterable[str], versions: Mapping[str, str], folder: Path) -> dict[str, Path]:
    """Download these packages' wheels, each the version that is pinned; the wheels by package."""
    names = list(names)
    loose = [name for name in names if name not in versions]
    if loose:
        raise ValueError(f"constraints.txt pins no version of {', '.join(loose)}: install it, then `make constraints`")
    tags = [f"manylinux_{tag}_x86_64" for tag in PLATFORMS] + [f"{tag}_x86_64" for tag in OLD_PLATFORMS]
    platforms = [f"--platform={tag}" for tag in tags]
    pip("download", "--no-deps", "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp", *platforms,
        f"--dest={folder}", *(f"{name}=={versions[name]}" for name in names))  # fmt: skip
    fetched = {named(wheel)[0]: wheel for wheel in folder.glob("*.whl")}
    return {name: fetched[name] for name in names}


def pip(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run this interpreter's pip, quietly; ValueError with its last lines if it fails."""
    command = [sys.executable, "-m", "pip", arguments[0], "-q", "--disable-pip-version-check", *arguments[1:]]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if run.returncode:
        raise ValueError("\n".join(["pip failed:", " ".join(command), *run.stdout.splitlines()[-15:]]))


def strip(source: Path, target: Path, unused: tuple[str, ...] = RAY_UNUSED) -> None:
    """Copy a wheel without the files whose names begin so. RECORD, the list of its files by which pip installs and
    removes them, loses the same lines, and programs such as `raylet` keep their run bits. Large files are packed with
    LZMA, which pip reads as well: a quarter less.
    """
    with zipfile.ZipFile(source) as full, zipfile.ZipFile(target, "w") as small:
        for entry in full.infolist():
            if entry.filename.startswith(unused):
                continue
            content = full.read(entry)
            if entry.filename.endswith(".dist-info/RECORD") and entry.filename.count("/") == 1:
                content = _without(content, unused)
            kept = zipfile.ZipInfo(entry.filename, entry.date_time)
            kept.external_attr = entry.external_attr  # the run bits
            packing = zipfile.ZIP_LZMA if len(content) > LARGE else zipfile.ZIP_DEFLATED
            small.writestr(kept, content, packing)


def _without(record: bytes, unused: tuple[str, ...]) -> bytes:
    rows = [row for row in csv.reader(io.StringIO(record.decode())) if row and not row[0].startswith(unused)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
