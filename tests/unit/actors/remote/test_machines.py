"""Ray's internals that are read because its public interface lacks them."""

import pytest
import ray

from actors.remote.machines import free_by_node


def test_the_installed_ray_has_what_is_read() -> None:
    assert callable(ray._private.state.available_resources_per_node)
    assert callable(ray._private.services.canonicalize_bootstrap_address)


def test_a_ray_without_it_leaves_placement_to_ray_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(ray._private.state, "available_resources_per_node")
    assert free_by_node() == {}
    assert "places the replicas by itself" in caplog.text
