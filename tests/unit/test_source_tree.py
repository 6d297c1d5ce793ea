"""How the tree looks: sizes, names, docstrings, and that the packages are those of this checkout."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.source_tree import FOLDERS, PACKAGES, ROOT, sources, tree

MOST_LINES = 300
NAMES_WITHOUT_A_NOUN = {"utils", "util", "base", "manager", "helpers", "helper", "common", "misc"}


def test_files_stay_short() -> None:
    counts = {source: len((ROOT / source).read_text(encoding="utf-8").splitlines()) for source in sources(*FOLDERS)}
    long = [f"{source} ({lines})" for source, lines in counts.items() if lines > MOST_LINES]
    assert not long, (
        f"over {MOST_LINES} lines: {', '.join(long)}. Split by noun: find the second thing that the file is "
        "about and give it a file of that name"
    )


def test_files_are_named_after_what_they_hold() -> None:
    nameless = [source for source in sources(*FOLDERS) if Path(source).stem in NAMES_WITHOUT_A_NOUN]
    folders = {parent for source in sources(*FOLDERS) for parent in Path(source).parents}
    nameless += [str(folder) for folder in folders if folder.name in NAMES_WITHOUT_A_NOUN]
    assert not nameless, (
        f"{', '.join(nameless)}: such a name fits anything, so everything ends up there. Name the thing that "
        "it holds, or move each part to the module that it serves"
    )


def test_modules_say_what_they_are() -> None:
    written = [source for source in sources(*FOLDERS) if not source.startswith(("protos/", "tests/"))]
    silent = [source for source in written if ast.get_docstring(tree(source)) is None]
    assert not silent, f"no docstring at the top of {', '.join(silent)}: say in a line what the module is and owns"


def test_sentences_of_the_product_begin_with_their_subject() -> None:
    begins = re.compile(r'("""|^ *# ?|\. |  # )(What|Who|Those) ', re.MULTILINE)
    riddles = [source for source in sources("cluster", "actors", "model") if begins.search((ROOT / source).read_text())]
    assert not riddles, f"a sentence begins with Who, What or Those in {riddles}: name the subject (CONTRIBUTING.md)"


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_resolve_inside_this_checkout(package: str, tmp_path: Path) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve().is_relative_to(ROOT), (
        f"{package} is imported from {spec.origin}: another installed package has that name; uninstall it"
    )
    # From elsewhere, as Ray's workers do: the editable install must lead here, or nothing be installed.
    lookup = f"from importlib.util import find_spec as f; s = f({package!r}); print(s.origin if s else '')"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", lookup]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    origin = run.stdout.strip()
    assert not origin or Path(origin).resolve().is_relative_to(ROOT), (
        f"outside the checkout {package} is imported from {origin}: install this one with `make venv`"
    )


def test_no_file_names_the_machine_it_was_made_on() -> None:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    everyones = {Path(name) for name in ("/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var/tmp")}
    private = {ROOT, ROOT.parent} - everyones - {Path(tempfile.gettempdir())}
    pattern = re.compile("|".join(rf"(?<![\w./-]){re.escape(str(path))}(?![\w-])" for path in private) or r"(?!)")
    telling = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > 1_000_000:
            continue
        content = path.read_bytes()
        if b"\0" not in content and pattern.search(content.decode("utf-8", "replace")):
            telling.append(name)
    assert not telling, (
        f"{', '.join(telling)}: holds a path of this machine ({', '.join(map(str, sorted(private)))}). "
        "Write paths relative to the checkout, or take them as arguments"
    )
