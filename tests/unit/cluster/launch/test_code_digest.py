from pathlib import Path

import pytest

from cluster.launch.code_digest import code_digest


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("actors/head.py", "model/trunk.py", "model/sampling/sampler.py", "cluster/engine/engine.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("name", ["actors/head.py", "model/trunk.py", "model/sampling/sampler.py"])
def test_what_runs_in_actors_counts_in_whatever_folder(checkout: Path, name: str) -> None:
    before = code_digest(checkout)
    assert before == code_digest(checkout)
    (checkout / name).write_text("other code")
    assert code_digest(checkout) != before


def test_a_file_that_moves_or_comes_counts_and_the_control_plane_does_not(checkout: Path) -> None:
    before = code_digest(checkout)
    (checkout / "cluster/engine/engine.py").write_text("other code")
    assert code_digest(checkout) == before
    (checkout / "actors/routing").mkdir()
    (checkout / "actors/head.py").rename(checkout / "actors/routing/head.py")
    moved = code_digest(checkout)
    assert moved != before
    (checkout / "actors/routing/empty.py").write_text("")
    assert code_digest(checkout) != moved


def test_this_checkouts_own_is_known() -> None:
    assert len(code_digest()) == 16
