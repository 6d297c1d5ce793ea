"""Unit tests start no cluster and share no threads: both are held here, for every test below this folder.

`ray` is guarded without importing it. Where it is loaded already, its entry points are replaced for the test;
where it is not, a finder waits for the import and replaces them right after.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

import pytest

GUARDED = ("init", "remote", "get_actor")


def _refusal(name: str) -> Any:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        pytest.fail(
            f"a unit test called ray.{name}. Construct the plain class (Head, Expert) and pass it a fake "
            "from tests/fakes.py or LocalTransport; what needs a cluster goes to tests/integration.",
            pytrace=True,
        )

    return refuse


def _guard(ray: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GUARDED:
        monkeypatch.setattr(ray, name, _refusal(name))


class _Loader(importlib.abc.Loader):
    """Loads `ray` as its own loader does, then guards it."""

    def __init__(self, wrapped: importlib.abc.Loader, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wrapped, self.monkeypatch = wrapped, monkeypatch

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.wrapped.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self.wrapped  # whoever asks later meets the real one
        self.wrapped.exec_module(module)
        _guard(module, self.monkeypatch)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `ray` as the path does, and hands it to the guarding loader."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "ray":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self.monkeypatch)
        return spec


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test that starts or looks for a Ray cluster, and says what to do instead."""
    if (ray := sys.modules.get("ray")) is not None:
        _guard(ray, monkeypatch)
        yield
        return
    finder = _Finder(monkeypatch)
    sys.meta_path.insert(0, finder)
    yield
    sys.meta_path.remove(finder)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Sums in fp32 depend on the number of threads. Costs nothing where torch is not loaded."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
