"""The record of a local Ray, by which a later command finds it: who owns it, whether it lives, how to remove it.

The process that holds the folder of Ray's files (`folder.py`) owns it. Ray's processes are found by mark (`marks.py`).
"""

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cluster.launch.local_ray import marks
from cluster.launch.local_ray.folder import (
    Hold,
    StateFolders,
    closing,
    open_below_private,
    open_private,
    read_private,
    write_private,
)

log = logging.getLogger("eightwinds.local_ray")

RECORD = "cluster.json"
_FRESH_SECONDS = 60.0  # cleaners of temporary folders look at ages of days


@dataclass(frozen=True, slots=True)
class LocalRay:
    """A local Ray: the folders of its `record` and of its files, GCS address and token. `owner_pid` is the `serve` that
    used it last, for messages only: `hold` tells whether an owner lives.
    """

    folder: str
    record: str
    namespace: str
    token: str
    owner_pid: int = 0
    address: str = ""
    hold: Hold | None = field(default=None, compare=False)

    @property
    def mark(self) -> str:
        return json.dumps([self.namespace, self.record, self.folder])

    def pids(self) -> list[int]:
        return marks.marked().get(self.mark, [])

    def taken(self) -> "LocalRay | None":
        """The same, owned by this process; None if a living process owns it. The folders must be locked, or two
        processes that only look would each take the other for the owner.
        """
        try:
            hold = Hold.of(Path(self.folder))
        except FileNotFoundError:  # cleaned away; a serve that has it open lives on
            hold = None if marks.holder(Path(self.folder)) else Hold(-1)
        return None if hold is None else dataclasses.replace(self, hold=hold, owner_pid=os.getpid())

    def let_go(self) -> None:
        """Give up ownership; the next `serve` may take it."""
        if self.hold is not None:
            self.hold.close()

    def write(self) -> None:
        """Write the record, readable by this user only because it holds the token."""
        kept = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "hold"}
        write_private(Path(self.record), RECORD, json.dumps(kept))

    def refresh(self) -> None:
        """Touch every file, so that cleaners of temporary folders leave it, and restore a record that was deleted."""
        for top in {self.folder, self.record}:
            for where, _, names in os.walk(top):
                for path in [where, *(os.path.join(where, name) for name in names)]:
                    with contextlib.suppress(OSError):
                        os.utime(path, follow_symlinks=False)
        record = Path(self.record)
        if os.path.isdir(self.folder) and not (record / RECORD).exists():
            with contextlib.suppress(OSError, ValueError), self._folders.made_and_locked():
                record.mkdir(mode=0o700, exist_ok=True)
                if self.hold is not None and not self.hold.released.is_set():
                    self.write()

    def keep_fresh(self) -> None:
        """Call `refresh` in a thread for as long as this process owns it."""
        hold = self.hold
        assert hold is not None, "only its owner may write its record"

        def run() -> None:
            while not hold.released.wait(_FRESH_SECONDS):
                self.refresh()

        threading.Thread(target=run, name="keep-record", daemon=True).start()

    def remove(self) -> None:
        """End its processes and delete its folders. Only its owner may."""
        assert self.hold is not None, "take it first: whoever does not own it may not remove it"
        self.hold.released.set()
        marks.end(self.mark)
        folders, name = self._folders, Path(self.folder).name
        with contextlib.suppress(OSError, ValueError), folders.locked():
            _delete(folders.records, name)
        with contextlib.suppress(OSError, ValueError):
            _delete(folders.files, name)
        self.hold.close()
        folders.tidied()

    @property
    def _folders(self) -> StateFolders:
        return StateFolders(Path(self.record).parent, Path(self.folder).parent)


def _delete(parent: Path, name: str) -> None:
    """Delete what has this name there, without following links; nothing where others might have put it."""
    with closing(open_private(parent)) as within:
        shutil.rmtree(name, ignore_errors=True, dir_fd=within)


def records(folders: StateFolders, namespace: str) -> Iterator[LocalRay]:
    """Every record of this namespace, but for those that another user could have written: these are not even read."""
    for folder in sorted(folders.records.iterdir()):
        try:
            local = LocalRay(**json.loads(read_private(folder, RECORD)))
            if (local.record, local.folder) != (str(folder), str(folders.files / folder.name)):
                raise ValueError(f"the record in {folder} is of other folders")
            with contextlib.suppress(FileNotFoundError):
                os.close(open_below_private(Path(local.folder)))
        except FileNotFoundError:
            continue  # being made, or being removed
        except (ValueError, TypeError, OSError) as error:
            log.warning("passed over: %s", error)
            continue
        if local.namespace == namespace:
            yield local


def orphans(namespace: str) -> list[LocalRay]:
    """Local Rays of this namespace that live without record and `serve`. The caller may remove them."""
    found = []
    for mark in marks.marked():
        try:
            of, record, folder = map(str, json.loads(mark))
        except (ValueError, TypeError):
            continue
        if of != namespace or marks.holder(Path(folder)) is not None:
            continue
        try:
            read_private(Path(record), RECORD)
        except (OSError, ValueError):
            found.append(LocalRay(folder, record, namespace, "", hold=Hold(-1)))
    return found
