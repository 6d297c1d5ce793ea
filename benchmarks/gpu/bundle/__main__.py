"""`python -m benchmarks.gpu.bundle make`: what a GPU machine without a network lacks, in one folder; there: `install`.

Such a machine has torch and CUDA's compiler, with Python 3.12, and some of what we need beside them. The folder holds
the wheels that are missing there, Ray's without what is never loaded, the source of flash-attn for
`benchmarks.gpu.flash.build`, and a tokenizer. `manifest.json` names every file; it is written last and checked first.

Standard library only: `install` is run by a Python that has nothing of ours.
"""

import argparse
import importlib
import shutil
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.bundle import wheels
from benchmarks.gpu.bundle.manifest import checked, mib, seal
from benchmarks.gpu.flash import source
from benchmarks.gpu.plan import STEPS

ROOT = Path(__file__).resolve().parents[3]
WHEELS, TOKENIZER, FLASH = "wheels", "tokenizer.model", "flash-attn-src.tar.xz"
FOR_TESTS = ("pytest", "pytest-asyncio")  # pyproject.toml sets options of both, and pytest refuses unknown ones

# Packages that are there already, of all that `eightwinds serve` and its packages need, in a version known to do.
# Packages that may be older there than our floors (grpcio, protobuf, rich, typer and so on) are not in this list and
# come along.
PRESENT = (
    *("anyio", "attrs", "certifi", "charset-normalizer", "click", "filelock", "h11", "idna", "iniconfig"),
    *("markdown-it-py", "mdurl", "msgpack", "numpy", "packaging", "pluggy", "pygments", "pyyaml", "requests"),
    *("safetensors", "sentencepiece", "shellingham", "torch", "urllib3"),
)


# Packages that the steps import only when they run, or the processes that they start.
LATER = ("ray", "cluster.cli", "cluster.serve", "cluster.launch", "actors.remote", "actors.remote_head", "llguidance",
         "transformers.models.mixtral.modeling_mixtral", "matplotlib.figure", "torch.profiler")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 with what to do about it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="fetch and pack; needs the developers' environment and a package index")
    making.add_argument("--to", type=Path, default=Path("gpu-bundle"), metavar="FOLDER", help="replaced if it is there")
    installing = commands.add_parser("install", help="on the GPU machine: put the wheels into a folder for PYTHONPATH")
    installing.add_argument("--from", type=Path, default=Path("gpu-bundle"), dest="bundle", metavar="FOLDER")
    installing.add_argument("--to", type=Path, required=True, metavar="SITE")
    commands.add_parser("check", help="import all that the steps import, with SITE on PYTHONPATH")
    given = parser.parse_args(arguments)
    try:
        if given.command == "make":
            make(given.to)
        elif given.command == "install":
            install(given.bundle, given.to)
        else:
            check()
    except (OSError, ValueError, ImportError, tarfile.TarError) as error:
        print(f"bundle: {error}", file=sys.stderr)
        return 1
    return 0


def make(folder: Path) -> None:
    """Fill the folder anew."""
    from benchmarks.mid import mistral_tokenizer  # imports torch, which `install` must not need

    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()) and not (folder / WHEELS).is_dir():
        raise ValueError(f"{folder} is there and is no bundle: name another folder, or remove it")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / WHEELS).mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        pack_wheels(folder / WHEELS, Path(scratch))
        source.pack(folder / FLASH, Path(scratch))
    shutil.copyfile(mistral_tokenizer(), folder / TOKENIZER)
    manifest = seal(folder)
    total = sum(entry["bytes"] for entry in manifest.values())
    print(f"{folder}: {len(manifest)} files, {mib(total)}, in {time.monotonic() - started:.0f} s")


def pack_wheels(folder: Path, scratch: Path) -> None:
    """Every wheel that is lacking there; Ray's stripped."""
    versions = wheels.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def needs(names: list[str]) -> dict[str, list[str]]:
        print(f"fetching {', '.join(f'{name} {versions.get(name)}' for name in names)}", flush=True)
        fetched = wheels.fetch(names, versions, scratch)
        return {name: wheels.required(wheels.requirements(wheel)) for name, wheel in fetched.items()}

    wheels.lacking([*wheels.required(project["dependencies"]), *FOR_TESTS], PRESENT, needs)
    for wheel in sorted(scratch.glob("*.whl")):
        if wheels.named(wheel)[0] == "ray":
            wheels.strip(wheel, folder / wheel.name)
            was, now = wheel.stat().st_size, (folder / wheel.name).stat().st_size
            print(f"stripped Ray: {mib(was)} -> {mib(now)}", flush=True)
        else:
            shutil.copyfile(wheel, folder / wheel.name)


def install(folder: Path, site: Path) -> None:
    """Put every wheel of the bundle into `site`; nothing is fetched."""
    started = time.monotonic()
    names = [name for name in checked(folder) if name.endswith(".whl")]
    wheels.pip("install", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade", f"--target={site}",
               *(str(folder / name) for name in names))  # fmt: skip
    print(f"installed {len(names)} packages in {time.monotonic() - started:.0f} s: PYTHONPATH={site}")


def check() -> None:
    """Import all that the steps import, at once or when they run; ImportError names everything that is missing."""
    steps = [f"benchmarks.gpu.steps.{step.name}" for step in STEPS]
    missing = []
    for name in [*LATER, *steps]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{name}: {error}")
    if missing:
        raise ImportError("\n".join(["these cannot be imported here:", *missing]))
    print(f"all of {len(LATER) + len(steps)} modules, and what they import, are there")


if __name__ == "__main__":
    sys.exit(main())
