"""A client's virtual environment, made once and kept until its requirements change."""

import shutil
import subprocess
import sys
from pathlib import Path

_SECONDS = 1800


class CannotInstall(Exception):
    """The reason is its text."""


def python_of(folder: Path, requirements: tuple[str, ...], unwanted: tuple[str, ...] = ()) -> Path:
    """The interpreter of an environment in `folder` that has the requirements, installed one after the other, so that
    a pin at the front stands, and nothing unwanted; raises CannotInstall.
    """
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join((f"# {sys.version_info.major}.{sys.version_info.minor}", *requirements))
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _told([sys.executable, "-m", "venv", str(folder)])
    for requirement in requirements:  # an index that is not there is soon known
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1"]
        _told([*pip, *requirement.split()])
    if unwanted:
        _told([str(python), "-m", "pip", "uninstall", "-q", "-y", *unwanted])
    stamp.write_text(wanted)
    return python


def _told(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        raise CannotInstall(f"not installed within {_SECONDS} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise CannotInstall(lines[-1].removeprefix("ERROR: ") if lines else f"exit code {done.returncode}")
