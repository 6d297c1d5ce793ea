"""What a machine must have is counted before anything starts."""

import resource
from pathlib import Path

import pytest

from cluster.launch import checks
from cluster.launch.checks import Memory, check_machine, memory, memory_needed, open_files_problem, raise_open_files
from cluster.settings.config import Config, load_config

GB = 10**9


def config(*settings: str) -> Config:
    return load_config(None, {}, list(settings))


def test_what_fits_below_rays_threshold_is_no_problem() -> None:
    assert Memory(100 * GB, 50 * GB).room == 45 * GB
    assert Memory(100 * GB, 50 * GB).problem(45 * GB) == ""
    assert Memory(100 * GB, 50 * GB).problem(46 * GB) == (
        "46.0 GB needed here, 45.0 GB free: 50.0 of 100.0 GB are in use, and above 95% Ray ends processes"
    )


def test_a_machine_above_the_threshold_has_no_room_and_the_advice_says_what_helps() -> None:
    full = Memory(100 * GB, 4 * GB)
    assert full.room == 0 and "96.0 of 100.0 GB are in use" in full.problem(1)
    assert "RAY_memory_usage_threshold" in full.advice()
    assert "kv.memory_bytes" in Memory(100 * GB, 50 * GB).advice()


def test_what_is_taken_over_counts_once() -> None:
    assert Memory(100 * GB, 20 * GB).problem(70 * GB, taken_over=True) == ""
    assert "needed here" in Memory(100 * GB, 20 * GB).problem(99 * GB, taken_over=True)


def test_the_container_counts_where_it_has_less_than_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 300000\n")
    assert memory({}, tmp_path) == Memory(1_000_000, 600_000)
    assert memory({"RAY_memory_usage_threshold": "0.5"}, tmp_path).room == 100_000
    assert memory({"RAY_memory_monitor_refresh_ms": "0"}, tmp_path).threshold == 1.0
    (tmp_path / "memory.max").write_text("max\n")
    assert memory({}, tmp_path).total > 1_000_000


def test_a_kv_cache_larger_than_the_machine_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"1000\.\d GB needed here, .*lower kv.memory_bytes"):
        check_machine(config("kv.memory_bytes=1000000000000", "runtime=in_process"), 0, taken_over=False)
    with pytest.raises(ValueError, match="needed here"):
        check_machine(config("kv.memory_bytes=1000000000000"), 0, taken_over=True)


def test_what_other_machines_or_gpus_hold_is_not_counted_here() -> None:
    assert memory_needed(config("cluster.ray_address=auto"), GB) == 0
    assert memory_needed(config("experts.num_gpus=1"), GB) == 0
    local = memory_needed(config("runtime=in_process", "kv.memory_bytes=1000"), GB)
    assert local == GB + 1000 + checks.ACTOR_BYTES
    two = memory_needed(config("experts.replicas=2"), 0) - memory_needed(config("experts.replicas=1"), 0)
    assert two == 8 * checks.ACTOR_BYTES


def test_the_limit_of_open_files_is_raised_and_too_low_a_one_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [64, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.__setitem__(slice(None), wanted))
    assert raise_open_files() == 4096 and limits == [4096, 4096]
    assert open_files_problem(4096, config()) == ""
    assert open_files_problem(64, config()) == (
        "64 open files are allowed, 200 are needed: ulimit -n 4096, or LimitNOFILE= in a unit"
    )
    assert open_files_problem(64, config("runtime=in_process")) == ""
    limits[:] = [64, 64]
    with pytest.raises(ValueError, match="64 open files are allowed"):
        check_machine(config(), 0, taken_over=False)


def test_a_model_gets_the_names_that_are_configured() -> None:
    served = checks.open_model(load_config(None, {}, ["gateway.model_aliases= gpt-4,org/other ,"]))
    assert served.names == ("demo", "gpt-4", "org/other")
    assert checks.open_model(Config()).names == ("demo",)
