"""Build flash-attn 2 for the card at hand: `python -m benchmarks.gpu.flash.build --source ARCHIVE --to FOLDER`.

Only what `model/attention` calls of it: the forward pass, whole and split, in bfloat16 with heads of 64 and 128.
That is eight of the package's 72 kernel files, and half of each: a minute on 16 cores instead of an hour. The rest
is refused when called, not computed wrongly. FOLDER then goes onto PYTHONPATH. Compiled files are kept in
FOLDER/.build, so that a second run takes up where a first one was cut off.
"""

import argparse
import os
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

MODULE = "flash_attn_2_cuda"  # the name that the package's Python imports
HEAD_DIMS = (64, 128)
KERNELS = tuple(
    f"flash_fwd_{split}hdim{width}_bf16_{causal}sm80.cu"  # sm80 is the code's oldest card; newer ones use the same
    for split in ("", "split_")
    for width in HEAD_DIMS
    for causal in ("", "causal_")
)
PYTHON = ("__init__.py", "flash_attn_interface.py", "bert_padding.py")

# As in the package's setup.py.
NVCC_FLAGS = (
    "-O3",
    "-std=c++17",
    "--expt-relaxed-constexpr",
    "--expt-extended-lambda",
    "--use_fast_math",
    *(f"-U__CUDA_NO_{part}__" for part in ("HALF_OPERATORS", "HALF_CONVERSIONS", "HALF2_OPERATORS")),
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
)
LEFT_OUT = [f"-DFLASHATTENTION_DISABLE_{part}" for part in ("BACKWARD", "DROPOUT", "ALIBI", "SOFTCAP", "UNEVEN_K")]

# flash_api.cpp names every variant, so it is compiled through this: the two switches know only what is built, and the
# backward pass, which it links to but with BACKWARD disabled never reaches, exists.
NARROWED_API = """\
#include <c10/util/Exception.h>
#include "namespace_config.h"
#include "static_switch.h"

#undef FP16_SWITCH
#define FP16_SWITCH(COND, ...)                                              \\
  [&] {                                                                     \\
    TORCH_CHECK(!(COND), "this flash-attn was built for bfloat16 only");    \\
    using elem_type = cutlass::bfloat16_t;                                  \\
    return __VA_ARGS__();                                                   \\
  }()

#undef HEADDIM_SWITCH
#define HEADDIM_SWITCH(HEADDIM, ...)                                        \\
  [&] {                                                                     \\
    TORCH_CHECK((HEADDIM) == 64 || (HEADDIM) == 128,                        \\
                "this flash-attn was built for heads of 64 and 128 only");  \\
    if ((HEADDIM) == 64) {                                                  \\
      constexpr static int kHeadDim = 64;                                   \\
      return __VA_ARGS__();                                                 \\
    } else {                                                                \\
      constexpr static int kHeadDim = 128;                                  \\
      return __VA_ARGS__();                                                 \\
    }                                                                       \\
  }()

#include "flash_api.cpp"

namespace FLASH_NAMESPACE {
template <typename T, int Headdim, bool Is_causal>
void run_mha_bwd_(Flash_bwd_params &, cudaStream_t) {
    TORCH_CHECK(false, "this flash-attn was built without the backward pass");
}
}  // namespace FLASH_NAMESPACE
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; 0 with a line that says how long it took, or 1 with the compiler's last lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.flash.build", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the archive in the bundle, or that unpacked")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the package goes")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="compilers at a time")
    parser.add_argument("--arch", help="compute capability without its point, such as 90; the default is the card's")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        library = build(given.source, given.to.resolve(), given.jobs, given.arch or capability())
    except (OSError, RuntimeError, tarfile.TarError) as error:
        print("\n".join(telling(str(error))), file=sys.stderr)
        print(f"flash-attn was not built, after {time.monotonic() - started:.0f} s", file=sys.stderr)
        return 1
    size = library.stat().st_size / 2**20
    print(f"built flash-attn in {time.monotonic() - started:.0f} s: {library}, {size:.1f} MiB", flush=True)
    return 0


def build(source: Path, folder: Path, jobs: int, arch: str) -> Path:
    """Compile and link in FOLDER/.build, then lay out the package in FOLDER; gives the library. It raises RuntimeError
    with the compiler's output if that failed, OSError if there is no source or no compiler.
    """
    work = folder / ".build"
    work.mkdir(parents=True, exist_ok=True)
    os.environ |= {"CUDA_HOME": str(cuda_home()), "MAX_JOBS": str(jobs)}
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where pip puts ninja
    root = unpacked(source, work)
    narrowed = work / "narrowed_api.cpp"
    if not narrowed.exists() or narrowed.read_text() != NARROWED_API:  # an older file is not compiled anew
        narrowed.write_text(NARROWED_API)
    (work / "lock").unlink(missing_ok=True)  # left by a run that was killed; torch would wait for it for ever

    from torch.utils import cpp_extension  # looks for the compiler when it is imported

    code = root / "csrc" / "flash_attn"
    headers = [flag for found in packaged_headers() for flag in ("-idirafter", str(found))]
    print(f"building flash-attn for sm_{arch}: {len(KERNELS) + 1} files, {jobs} at a time", flush=True)
    cpp_extension.load(  # imports what it linked, and so shows that no symbol is missing
        MODULE,
        [str(narrowed), *(str(code / "src" / name) for name in KERNELS)],
        extra_cflags=["-O3", *LEFT_OUT, *headers],
        extra_cuda_cflags=[
            *NVCC_FLAGS,
            *LEFT_OUT,
            *("-gencode", f"arch=compute_{arch},code=sm_{arch}"),
            *(word for flag in headers for word in ("-Xcompiler", flag)),
        ],
        extra_include_paths=[str(code), str(code / "src"), str(root / "csrc" / "cutlass" / "include")],
        build_directory=str(work),
    )
    for line in timings(work / ".ninja_log"):
        print(line)
    return lay_out(root / "flash_attn", work / f"{MODULE}.so", folder)


def unpacked(source: Path, work: Path) -> Path:
    """The folder that has `flash_attn` and `csrc`: `source` itself, or where it was unpacked to below `work`. Files
    keep the archive's times, so that unpacking again compiles nothing anew.
    """
    if source.is_dir():
        return source.resolve()
    with tarfile.open(source) as archive:
        archive.extractall(work / "source", filter="data")
    return work / "source"


def lay_out(python: Path, library: Path, folder: Path) -> Path:
    """Put the package's Python, the library, and the version, which transformers asks for, where imports find them."""
    (folder / "flash_attn").mkdir(exist_ok=True)
    for name in PYTHON:
        shutil.copy2(python / name, folder / "flash_attn" / name)
    found = re.search(r'__version__ = "(.+)"', (python / "__init__.py").read_text())
    version = found.group(1) if found else "0"
    about = folder / f"flash_attn-{version}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flash-attn\nVersion: {version}\n")
    return Path(shutil.copy2(library, folder / library.name))


def telling(output: str) -> list[str]:
    """The last lines of what compilers said, and after them those that name an error: warnings may stand between."""
    lines = output.splitlines()
    return lines[-20:] + [line for line in lines[:-20] if re.search(r"\berror\b", line)][:10]


def capability() -> str:
    """`90` for an H100 or H200, as for a machine without a card, where what is built can be linked but not called."""
    import torch

    return "".join(map(str, torch.cuda.get_device_capability())) if torch.cuda.is_available() else "90"


def cuda_home() -> Path:
    """The folder of CUDA's compiler and headers. torch takes the parent of wherever `nvcc` is found, which is wrong
    where that is a script in /usr/local/bin.
    """
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    on_path = shutil.which("nvcc")
    candidates = [Path(named)] if named else [Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"))]
    candidates += [Path(on_path).resolve().parent.parent] if on_path else []
    for candidate in candidates:
        if (candidate / "bin" / "nvcc").exists() and (candidate / "include" / "cuda_runtime.h").exists():
            return candidate
    raise OSError(f"no CUDA compiler in {', '.join(map(str, candidates))}: install one, or set CUDA_HOME to its folder")


def packaged_headers() -> list[Path]:
    """Where pip put headers of CUDA's libraries: torch's own ask for some that a bare compiler comes without."""
    import torch

    return sorted((Path(torch.__file__).parent.parent / "nvidia").glob("*/include"))


def timings(log: Path) -> list[str]:
    """Seconds that each file took, the slowest first, from ninja's log. A line of it is `start end mtime output hash`,
    tabs between them and times in milliseconds; the last line of a file counts.
    """
    rows = [line.split("\t") for line in log.read_text().splitlines() if not line.startswith("#")]
    seconds = {row[3]: (int(row[1]) - int(row[0])) / 1000 for row in rows}
    return [f"{taken:7.1f} s  {name}" for name, taken in sorted(seconds.items(), key=lambda pair: -pair[1])]


if __name__ == "__main__":
    sys.exit(main())
