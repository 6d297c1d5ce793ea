"""Whose a local Ray is, and that nothing but it is ended and deleted; with processes that are no Ray."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.launch.local_ray import daemon, marks
from cluster.launch.local_ray.folder import Hold, StateFolders, write_private
from cluster.launch.local_ray.record import RECORD, LocalRay, orphans, records


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolders:
    found = StateFolders(tmp_path / "run", tmp_path / "files")
    monkeypatch.setattr(daemon, "state_folders", lambda: found)
    return found


def made(folders: StateFolders, namespace: str = "test", address: str = "127.0.0.1:1") -> LocalRay:
    """One whose `serve` has ended: nobody holds it."""
    with folders.made_and_locked():
        name = folders.new_name()
        local = LocalRay(str(folders.files / name), str(folders.records / name), namespace, "secret", address=address)
        local.write()
    return local


def running(local: LocalRay) -> "subprocess.Popen[bytes]":
    environment = os.environ | marks.mark(local.mark)
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=environment)


def test_one_that_is_owned_is_left_alone_whatever_the_clock_says(
    folders: StateFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = made(folders)
    owner = local.taken()
    assert owner is not None and local.taken() is None
    for step in (3600.0, -3600.0):
        now = time.time() + step
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert local.taken() is None
        assert daemon.down("test") == ["left alone the cluster of the running serve, process 0: stop that itself"], (
            "the number is of the record, which only the owner writes"
        )
    owner.let_go()
    assert daemon.down("test") == ["removed a local Ray of 0 processes"]


def test_down_removes_processes_and_both_folders_and_nothing_else(folders: StateFolders) -> None:
    local, other = made(folders), made(folders, "another")
    process, bystander = running(local), running(other)
    try:
        assert daemon.left_behind("test") == [f"1 local Ray of an earlier serve, recorded in {folders.records}"]
        assert daemon.down("test") == ["removed a local Ray of 1 processes"]
        assert process.wait(5) and bystander.poll() is None
        assert not Path(local.folder).exists() and not Path(local.record).exists() and Path(other.folder).exists()
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("what", ["of other folders", "readable by others", "a link", "of another version"])
def test_a_record_that_is_not_ours_alone_ends_and_deletes_nothing(
    what: str, folders: StateFolders, tmp_path: Path
) -> None:
    local = made(folders)
    process, precious = running(local), tmp_path / "precious"
    precious.mkdir(mode=0o700)
    record = Path(local.record)
    try:
        if what == "of other folders":
            dataclasses.replace(local, folder=str(precious), record=str(record)).write()
        elif what == "readable by others":
            (record / RECORD).chmod(0o644)
        elif what == "a link":
            (record / RECORD).rename(precious / RECORD)
            (record / RECORD).symlink_to(precious / RECORD)
        else:
            write_private(record, RECORD, json.dumps({"session": process.pid, "folder": str(precious)}))
        with folders.locked():
            assert list(records(folders, "test")) == []
            assert precious.exists() and process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_processes_are_found_by_mark_when_the_record_is_gone(folders: StateFolders) -> None:
    local = made(folders, namespace := f"lost-{os.getpid()}")
    process = running(local)
    assert orphans(namespace) == []
    (Path(local.record) / RECORD).unlink()
    assert daemon.left_behind(namespace) == ["1 processes of a local Ray whose record is gone"]
    assert daemon.down(namespace) == ["removed a local Ray of 1 processes, whose record was gone"]
    assert process.wait(5) and not Path(local.folder).exists()


def test_a_record_that_is_gone_under_a_living_serve_costs_it_nothing_and_comes_back(folders: StateFolders) -> None:
    local = made(folders, namespace := f"cleaned-{os.getpid()}")
    owner, process = local.taken(), running(local)
    assert owner is not None
    try:
        (Path(local.record) / RECORD).unlink()
        Path(local.record).rmdir()
        assert daemon.down(namespace) == [] and process.poll() is None
        owner.refresh()
        with folders.locked():
            assert [found.pids() for found in records(folders, namespace)] == [[process.pid]]
    finally:
        owner.remove()
    assert process.wait(5)


def test_refreshing_makes_all_that_is_in_use_look_new(folders: StateFolders) -> None:
    local = made(folders)
    deep = Path(local.folder) / "session" / "sockets"
    deep.mkdir(parents=True)
    (deep / "raylet").touch()
    old = [Path(local.record) / RECORD, Path(local.record), deep, deep / "raylet", Path(local.folder)]
    for path in old:
        os.utime(path, (1.0, 1.0))
    owner = local.taken()
    assert owner is not None
    owner.refresh()
    assert all(path.stat().st_mtime > 1.0 for path in old)
    owner.remove()
    assert not folders.records.exists() and not folders.files.exists()


def test_of_two_that_come_at_once_one_takes_over_and_the_other_starts_anew(
    folders: StateFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = made(folders)
    process, started = running(local), []

    def start(_folders: StateFolders, namespace: str, _cpus: int) -> LocalRay:
        name = folders.new_name()
        mine = LocalRay(str(folders.files / name), str(folders.records / name), namespace, "other")
        started.append(dataclasses.replace(mine, hold=Hold.of(Path(mine.folder))))
        return started[-1]

    monkeypatch.setattr(daemon, "start", start)
    monkeypatch.setattr(daemon, "_environment", lambda token: {})
    first, second = (daemon.prepare("test", "", 1) for _ in range(2))
    assert first is not None and second is not None
    try:
        assert first.folder == local.folder and second.folder == started[0].folder != local.folder
        second.remove()  # as the loser does on leaving
        assert process.poll() is None and Path(local.record, RECORD).exists()
    finally:
        first.remove()
    assert process.wait(5)
