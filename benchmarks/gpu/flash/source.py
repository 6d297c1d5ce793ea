"""flash-attn's source distribution, and of it what `benchmarks.gpu.flash.build` needs. Standard library only."""

import os
import tarfile
from pathlib import Path

from benchmarks.gpu.bundle import wheels
from benchmarks.gpu.flash import build

VERSION = "2.8.3.post2"


def pack(archive: Path, scratch: Path) -> None:
    """Fetch it and write the archive.

    pip asks a source distribution for its metadata even when it only fetches it, and this one's setup.py imports torch
    and wheel. torch is here; wheel is put beside it for that moment.
    """
    print(f"fetching flash-attn {VERSION}, source", flush=True)
    beside, fetched = scratch / "beside", scratch / "source"
    wheels.pip("install", "--no-deps", f"--target={beside}", "wheel")
    environment = {**os.environ, "PYTHONPATH": str(beside), "FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE"}
    wheels.pip("download", "--no-deps", "--no-binary=:all:", "--no-build-isolation", f"--dest={fetched}",
               f"flash-attn=={VERSION}", environment=environment)  # fmt: skip
    (sdist,) = fetched.glob("*.tar.gz")
    print(f"packing what is needed of {sdist.stat().st_size >> 20} MiB", flush=True)
    with tarfile.open(sdist) as full, tarfile.open(archive, "w:xz", preset=9) as small:
        for member in full:
            member.name = member.name.partition("/")[2]
            if member.isfile() and needed(member.name):
                small.addfile(member, full.extractfile(member))


def needed(name: str) -> bool:
    """Whether a file of the source distribution, named from its root, is needed."""
    folder, _, file = name.rpartition("/")
    match folder:
        case "":
            return file == "LICENSE"
        case "flash_attn":
            return file in build.PYTHON
        case "csrc/flash_attn":
            return file == "flash_api.cpp"
        case "csrc/flash_attn/src":
            return file in build.KERNELS or (file.endswith((".h", ".cuh")) and "bwd" not in file)
        case "csrc/cutlass":
            return file.startswith("LICENSE")
    return name.startswith(("csrc/cutlass/include/cute/", "csrc/cutlass/include/cutlass/"))
