"""Whom we believe about what lies in a folder, and that two never believe the same."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cluster.launch.local_ray.folder import Hold, StateFolders, open_private, read_private, state_folders, write_private


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    return folder


def test_a_folder_counts_only_if_it_is_ours_alone_and_no_link(private: Path) -> None:
    os.close(open_private(private))
    (private / "link").symlink_to(private)
    with pytest.raises(ValueError, match="is a link"):
        open_private(private / "link")
    with pytest.raises(ValueError, match=f"belongs to user {os.getuid()}, not to {os.getuid() + 1}"):
        open_private(private, os.getuid() + 1)
    private.chmod(0o750)
    with pytest.raises(ValueError, match=r"open to other users \(mode 750"):
        open_private(private)


def test_a_file_is_read_only_if_it_is_ours_alone_and_no_link(private: Path) -> None:
    write_private(private, "record", "words")
    assert read_private(private, "record") == "words"
    assert (private / "record").stat().st_mode & 0o777 == 0o600
    (private / "link").symlink_to(private / "record")
    with pytest.raises(OSError):
        read_private(private, "link")
    os.mkfifo(private / "pipe", 0o600)
    with pytest.raises(ValueError, match="is no file"):
        read_private(private, "pipe")  # and does not wait for somebody to write into it
    (private / "record").chmod(0o644)
    with pytest.raises(ValueError, match="open to other users"):
        read_private(private, "record")


def test_writing_replaces_a_link_and_does_not_follow_it(private: Path) -> None:
    (private / "precious").write_text("precious")
    (private / "record").symlink_to(private / "precious")
    write_private(private, "record", "words")
    assert (private / "precious").read_text() == "precious" and read_private(private, "record") == "words"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder of another user's")
def test_a_folder_that_a_stranger_made_is_refused(private: Path) -> None:
    planted = private / f"eightwinds-{os.getuid()}"
    planted.mkdir(mode=0o700)
    os.chown(planted, 65534, 65534)
    folders = StateFolders(planted, planted)
    with pytest.raises(ValueError, match="belongs to user 65534"), folders.made_and_locked():
        pass


def test_what_lies_in_a_private_folder_may_be_open_as_nobody_else_gets_there(private: Path) -> None:
    write_private(private, "record", "words")
    private.chmod(0o777)  # as Ray does with its own
    assert read_private(private, "record") == "words"
    private.parent.chmod(0o777)
    with pytest.raises(ValueError, match="open to other users"):
        read_private(private, "record")


def test_eightwinds_state_is_used_or_refused_with_the_limit_and_the_reason() -> None:
    assert state_folders({"EIGHTWINDS_STATE": "/tmp/mine"}, 1000).records == Path("/tmp/mine/eightwinds-1000")
    longest = "/" + "x" * 21
    assert str(state_folders({"EIGHTWINDS_STATE": longest}, 1000).files).startswith(longest)
    with pytest.raises(ValueError, match="longer than 22 characters: Ray makes sockets"):
        state_folders({"EIGHTWINDS_STATE": longest + "x"}, 1000)


def test_the_longest_path_that_is_allowed_fits_into_a_socket_address() -> None:
    folder = state_folders({"EIGHTWINDS_STATE": "/" + "x" * 21}, 1000).files / "abcd"
    path = f"{folder}/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
    assert len(path) == 107


def test_records_lie_in_the_users_runtime_folder_if_it_is_private(private: Path) -> None:
    folders = state_folders({"XDG_RUNTIME_DIR": str(private)}, os.getuid())
    assert folders.records == private / "eightwinds" and folders.files.name == f"eightwinds-{os.getuid()}"
    private.chmod(0o755)
    assert state_folders({"XDG_RUNTIME_DIR": str(private)}, os.getuid()).records != private / "eightwinds"


def test_a_hold_is_exclusive_and_ends_with_its_process(private: Path) -> None:
    code = "import sys; from pathlib import Path; from cluster.launch.local_ray.folder import Hold\n"
    code += "held = Hold.of(Path(sys.argv[1])); print(held is not None, flush=True); input()"
    command = [sys.executable, "-c", code, str(private)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "True\n"
    assert Hold.of(private) is None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays a zombie
    held = Hold.of(private)
    assert held is not None and Hold.of(private) is None
    held.close()
    again = Hold.of(private)
    assert again is not None
    again.close()
    child.communicate()


def test_the_lock_holds_although_the_folder_is_removed_and_made_again_meanwhile(private: Path) -> None:
    folders, inside, most = StateFolders(private / "a", private / "a"), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with folders.made_and_locked():
                inside += 1
                most = max(most, inside)
                inside -= 1
                folders.tidied()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_parent_that_is_no_folder_is_told_at_once(private: Path) -> None:
    (private / "gone").symlink_to(private / "nowhere")
    folders = StateFolders(private / "gone" / "records", private / "gone" / "files")
    with pytest.raises(FileExistsError), folders.made_and_locked():
        pass
