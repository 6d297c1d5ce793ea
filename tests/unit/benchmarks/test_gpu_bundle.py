import csv
import io
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu.bundle import __main__ as bundle
from benchmarks.gpu.bundle import manifest, wheels
from benchmarks.gpu.flash import build, source

FILES = {
    "ray/__init__.py": 0o644,
    "ray/core/raylet": 0o755,
    "ray/jars/ray_dist.jar": 0o644,
    "ray/inner/inner-1.dist-info/RECORD": 0o644,  # another package's, carried along
    "ray-2.dist-info/METADATA": 0o644,
}
RECORD = "ray-2.dist-info/RECORD"


def wheel_of(path: Path, files: dict[str, int], content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
        archive.writestr(RECORD, "".join(f'"{name}",sha256=abc,1\n' for name in files) + f"{RECORD},,\n")
    return path


def test_a_stripped_wheel_lists_what_it_holds(tmp_path: Path) -> None:
    full, small = wheel_of(tmp_path / "full.whl", FILES), tmp_path / "small.whl"
    wheels.strip(full, small, unused=("ray/jars/",))
    with zipfile.ZipFile(small) as archive:
        names = archive.namelist()
        rows = list(csv.reader(io.StringIO(archive.read(RECORD).decode())))
    assert names == [*(name for name in FILES if not name.startswith("ray/jars/")), RECORD]
    assert [row[0] for row in rows] == names
    assert rows[0] == ["ray/__init__.py", "sha256=abc", "1"], "hashes stay, since the files do"


def test_a_stripped_wheel_keeps_run_bits_and_what_is_in_the_files(tmp_path: Path) -> None:
    content = bytes(range(256)) * (wheels.LARGE // 256 + 1)  # large enough to be packed with LZMA
    full, small = wheel_of(tmp_path / "full.whl", FILES, content), tmp_path / "small.whl"
    wheels.strip(full, small, unused=("ray/jars/",))
    with zipfile.ZipFile(small) as archive:
        modes = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
        assert modes["ray/core/raylet"] & 0o111 and not modes["ray/__init__.py"] & 0o111
        assert archive.read("ray/core/raylet") == content
        assert archive.read("ray/inner/inner-1.dist-info/RECORD") == content
    assert small.stat().st_size < full.stat().st_size


def test_what_a_package_needs_on_the_machine() -> None:
    said = [
        "Typing_Extensions>=4.14; python_version < '3.13'",
        "anyio<5,>=3.6",
        "colorama>=0.4; sys_platform == 'win32'",
        'async-timeout; python_full_version < "3.11.3"',
        'httptools>=0.6; extra == "standard"',
        'greenlet ; platform_python_implementation == "CPython"',
        "h11[extra] (>=0.8)",
    ]
    assert wheels.required(said) == ["typing-extensions", "anyio", "greenlet", "h11"]


def test_lacking_is_what_is_wanted_and_what_that_needs_without_what_is_there() -> None:
    needs = {"pydantic": ["pydantic_core", "numpy"], "pydantic-core": ["typing-extensions"], "ray": ["pydantic"]}
    asked: list[str] = []

    def needed(names: list[str]) -> dict[str, list[str]]:
        asked.extend(names)
        return {name: needs.get(name, []) for name in names}

    found = wheels.lacking(["Ray", "torch", "pydantic"], ["torch", "NumPy"], needed)
    assert found == ["pydantic", "pydantic-core", "ray", "typing-extensions"]
    assert sorted(asked) == found, "each is fetched once, and nothing that is there"


def test_a_package_without_a_pin_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no version of surprise.*make constraints"):
        wheels.fetch(["ray", "surprise"], wheels.pins("# ours\nray==2.60.0\n"), tmp_path)


def test_a_bundle_that_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 300)
    (tmp_path / "small").write_bytes(b"x")
    assert set(manifest.seal(tmp_path, most=301)) == {"large", "small"}
    (tmp_path / manifest.MANIFEST).unlink()
    with pytest.raises(ValueError, match=r"more than the 0.0 MiB that can be carried\. Its largest: large"):
        manifest.seal(tmp_path, most=300)
    with pytest.raises(ValueError, match="half made"):
        manifest.checked(tmp_path)


def test_a_bundle_is_installed_only_as_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "ray-2.60.0-cp312-cp312-linux_x86_64.whl").write_bytes(b"whole")
    assert manifest.seal(tmp_path) == manifest.checked(tmp_path)
    assert [entry["version"] for entry in manifest.checked(tmp_path).values()] == ["2.60.0"]
    (tmp_path / "ray-2.60.0-cp312-cp312-linux_x86_64.whl").write_bytes(b"torn")
    with pytest.raises(ValueError, match="not what the manifest says"):
        manifest.checked(tmp_path)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is no bundle"):
        bundle.make(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_flash_attn_travels_without_what_is_not_built() -> None:
    code = "csrc/flash_attn/src"
    assert len(set(build.KERNELS)) == 8
    needed = [f"{code}/{kernel}" for kernel in build.KERNELS]
    needed += [f"{code}/softmax.h", f"{code}/philox.cuh", "csrc/flash_attn/flash_api.cpp", "flash_attn/__init__.py"]
    needed += ["csrc/cutlass/include/cute/tensor.hpp", "csrc/cutlass/include/cutlass/arch/mma.h", "LICENSE"]
    unneeded = [f"{code}/flash_bwd_kernel.h", f"{code}/flash_fwd_hdim96_bf16_sm80.cu", "setup.py"]
    unneeded += ["csrc/composable_kernel/include/ck/ck.hpp", "flash_attn/layers/rotary.py"]
    assert [name for name in needed + unneeded if source.needed(name)] == needed
