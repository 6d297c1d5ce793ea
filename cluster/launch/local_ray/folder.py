"""The folders that hold what a local Ray leaves on this machine: who may write there, and one lock around them.

Records lie where nothing cleans (the user's runtime folder), Ray's own files in the temporary folder, which has room.
A folder counts only if it is the caller's, closed to others, and reached without following a link; otherwise another
user could make us end processes and delete files of his choice.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_SOCKET_BYTES = 107  # of a Unix socket's path; below the folder Ray puts session_DATE_TIME_MICROSECONDS_PID/sockets/...
_RAY_BYTES = len("/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store")
_NAME_BYTES = 4  # of a cluster's own folder
_ADVICE = "remove it, or set EIGHTWINDS_STATE to a folder of your own"


@dataclass(frozen=True, slots=True)
class StateFolders:
    """Where `records` lie, and where Ray keeps its `files`: in both, each cluster has a folder of one name."""

    records: Path
    files: Path

    @contextlib.contextmanager
    def made_and_locked(self) -> Iterator[None]:
        """Make and lock both; ValueError if others can reach into one."""
        while True:
            for folder in (self.records, self.files):
                folder.parent.mkdir(parents=True, exist_ok=True)  # what is in its place is told
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
            with contextlib.ExitStack() as stack:
                try:
                    stack.enter_context(self.locked())
                    os.close(open_private(self.files))
                except FileNotFoundError:
                    continue  # another has just tidied up
                yield
                return

    def new_name(self) -> str:
        """Make the folders of a new name; returns the name."""
        while True:
            name = secrets.token_hex(_NAME_BYTES // 2)
            with contextlib.suppress(FileExistsError):
                (self.files / name).mkdir(mode=0o700)
                break
        (self.records / name).mkdir(mode=0o700, exist_ok=True)
        return name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Wait for the lock under which processes of this user look, take and remove. Raises as `open_private`."""
        while True:
            with closing(open_private(self.records)) as fd:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(fd), self.records.lstat()):  # else it was removed while we waited
                    yield
                    return

    def tidied(self) -> None:
        """Remove both folders if they are empty."""
        for folder in (self.records, self.files):
            with contextlib.suppress(OSError):  # another cluster's record is in it
                folder.rmdir()


def state_folders(environ: Mapping[str, str] | None = None, uid: int | None = None) -> StateFolders:
    """The folders' paths, whether or not they exist. ValueError if EIGHTWINDS_STATE is too long for Ray's sockets."""
    environ = os.environ if environ is None else environ
    uid = os.getuid() if uid is None else uid
    own = f"eightwinds-{uid}"
    limit = _SOCKET_BYTES - _RAY_BYTES - len(f"/{own}/") - _NAME_BYTES
    if base := environ.get("EIGHTWINDS_STATE", ""):
        folder = Path(os.path.abspath(base), own)
        if len(os.fsencode(folder.parent)) > limit:
            raise ValueError(
                f"EIGHTWINDS_STATE={base} is longer than {limit} characters: Ray makes sockets below it, and their "
                f"paths may have {_SOCKET_BYTES} bytes; choose a shorter one"
            )
        return StateFolders(folder, folder)
    temporary = tempfile.gettempdir()  # is short, or not what the operator chose for us
    files = Path(temporary if len(os.fsencode(temporary)) <= limit else "/tmp") / own
    for runtime in filter(None, (environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}")):
        with contextlib.suppress(OSError, ValueError):
            os.close(open_private(Path(runtime), uid))
            return StateFolders(Path(runtime) / "eightwinds", files)
    return StateFolders(files, files)


@contextlib.contextmanager
def closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def open_private(path: Path, uid: int | None = None) -> int:
    """Open a folder that is this user's and closed to others. ValueError says what is wrong with it, OSError that there
    is none.
    """
    fd = _opened(path)
    if problem := _problem(os.fstat(fd), os.getuid() if uid is None else uid):
        os.close(fd)
        raise ValueError(f"{path} {problem}: {_ADVICE}")
    return fd


def open_below_private(path: Path) -> int:
    """Open a folder inside a private one. Its own mode does not matter: Ray makes its folder readable to all."""
    with closing(open_private(path.parent)) as within:
        fd = _opened(path, within)
    if os.fstat(fd).st_uid != os.getuid():
        os.close(fd)
        raise ValueError(f"{path} belongs to another user: {_ADVICE}")
    return fd


def _opened(path: Path, within: int | None = None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path if within is None else path.name, flags, dir_fd=within)
    except NotADirectoryError:  # a link is one, too
        raise ValueError(f"{path} is a link or no folder: {_ADVICE}") from None
    except PermissionError:
        raise ValueError(f"{path} is closed to us: {_ADVICE}") from None


def _problem(found: os.stat_result, uid: int) -> str:
    if found.st_uid != uid:
        return f"belongs to user {found.st_uid}, not to {uid}"
    if stat.S_IMODE(found.st_mode) & 0o077:
        return f"is open to other users (mode {stat.S_IMODE(found.st_mode):o}, should be 700)"
    return ""


def read_private(folder: Path, name: str) -> str:
    """Read a file; ValueError or OSError unless it and its folders are ours, closed to others, and no links."""
    with closing(open_below_private(folder)) as within:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=within)
    with open(fd, encoding="utf-8") as file:
        found = os.fstat(fd)
        if problem := _problem(found, os.getuid()) or ("" if stat.S_ISREG(found.st_mode) else "is no file"):
            raise ValueError(f"{folder / name} {problem}")
        return file.read()


def write_private(folder: Path, name: str, text: str) -> None:
    """Replace a file atomically, readable by this user only."""
    with closing(open_below_private(folder)) as within:
        draft = f".{name}.{secrets.token_hex(4)}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=within)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(draft, name, src_dir_fd=within, dst_dir_fd=within)


class Hold:
    """A lock of this process on a folder, which the kernel releases however the process ends. Process ids, times and a
    file's contents prove less, because they may be another process's by the time they are read. systemd-tmpfiles does
    not clean a folder that is locked.
    """

    def __init__(self, fd: int) -> None:
        self._fd, self.released = fd, threading.Event()

    @classmethod
    def of(cls, folder: Path) -> "Hold | None":
        """Lock a folder; None if another process has it. ValueError or OSError if it is no private folder of ours."""
        fd = open_below_private(folder)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return cls(fd)

    def close(self) -> None:
        self.released.set()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
