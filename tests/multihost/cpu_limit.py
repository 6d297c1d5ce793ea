"""A limit on the CPU time of a host's processes, by control groups of either version."""

import contextlib
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 10_000  # microseconds, so that a host is slow rather than stopped now and then


class CpuLimit:
    """Processes started with its words in front, and theirs, use that many cores together."""

    def __init__(self, name: str, cores: float) -> None:
        first = (_ROOT / "cpu" / "cpu.cfs_quota_us").exists() or (_ROOT / "cpu").is_dir()
        self._folder = (_ROOT / "cpu" if first else _ROOT) / f"eightwinds-{name}"
        self._folder.mkdir(exist_ok=True)
        quota = round(cores * _PERIOD)
        if first:
            (self._folder / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (self._folder / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (self._folder / "cpu.max").write_text(f"{quota} {_PERIOD}")

    def words(self) -> list[str]:
        """To be followed by a command."""
        return ["sh", "-c", f'echo $$ >{self._folder / "cgroup.procs"} && exec "$@"', "sh"]

    def remove(self) -> None:
        """When all its processes have ended."""
        with contextlib.suppress(OSError):  # one is about to end: the group is empty then, and in nobody's way
            self._folder.rmdir()
