"""Who may import what: tables that fail when the tree departs from them, and say how to mend it."""

import ast
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, WITHOUT_TORCH, Import, imports, module_name, sources, tree

# package: the only files of ours that may import it
HOMES = {
    "ray": ("actors/remote/*", "actors/transport/object_refs.py", "cluster/launch/on_ray/*"),
    "torch": (
        "model/*",
        "actors/head.py",
        "actors/expert.py",
        "actors/routing/receipt.py",
        "actors/routing/router.py",
        "actors/routing/route_table.py",
        "actors/routing/step_counts.py",
        "actors/transport/seam.py",
        "actors/transport/local.py",
    ),
    "grpc": ("cluster/gateway/*", "cluster/client/*"),
    "protos": ("cluster/gateway/*", "cluster/client/*"),
    "prometheus_client": ("cluster/observe/metrics.py",),
}
ALSO_COUNTS_AS = {
    "torch": ("safetensors.torch",),
    "grpc": (
        "grpc_health",
        "grpc_reflection",
        "grpc_status",
        "google.protobuf",
        "google.rpc",
    ),
}
WHY = {
    "ray": "all else is plain classes that a test constructs; take a handle or a Protocol as an argument",
    "torch": "the control plane starts at once; pass plain ints and bytes, as model/batch.py does",
    "grpc": "the engine knows requests and events, not the wire; translate in cluster/gateway/rpc",
    "protos": "messages end at the gateway; give the inner layers a dataclass of their own",
    "prometheus_client": "count in plain numbers and let cluster/observe/metrics.py read them",
}

LAYERS = {
    "cluster": {"cluster", "actors", "model", "protos"},
    "actors": {"actors", "model"},
    "model": {"model"},
    "protos": {"protos"},
}

# A policy takes a snapshot and the time and returns a value. Beside its own it may read these modules of plain data.
PLAIN_DATA = ("cluster.policy", "model.batch", "actors.replica", "actors.specs", "actors.vitals")
NOT_IN_A_POLICY = {"time", "datetime", "random", "secrets", "uuid", "logging"}

OURS = sources(*PACKAGES)


def _of(package: str, name: Import) -> bool:
    return any(name.within(counted) for counted in (package, *ALSO_COUNTS_AS.get(package, ())))


def _is_allowed(source: str, homes: tuple[str, ...]) -> bool:
    return any(fnmatchcase(source, home) for home in homes)


@pytest.mark.parametrize("package", HOMES)
def test_package_is_imported_only_at_its_homes(package: str) -> None:
    astray = [
        found.where
        for source in OURS
        if not _is_allowed(source, HOMES[package]) and not source.startswith(f"{package}/")
        for found in imports(source)
        if _of(package, found)
    ]
    assert not astray, (
        f"{package} is imported in {', '.join(astray)}, but belongs only in {', '.join(HOMES[package])}: {WHY[package]}"
    )


def test_contracts_and_readers_of_files_stay_without_torch() -> None:
    astray = [
        found.where for source in OURS if source in WITHOUT_TORCH for found in imports(source) if _of("torch", found)
    ]
    assert not astray, (
        f"torch is imported in {', '.join(astray)}. Control plane and clients import these files: "
        "read with numpy or plain bytes, or move what needs tensors to a module beside it (model/checkpoint/weights.py)"
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_import_downwards(layer: str) -> None:
    refused = ({*PACKAGES, "tests", "benchmarks", "examples"}) - LAYERS[layer]
    upwards = [
        f"{found.where} ({found.name})"
        for source in sources(layer)
        for found in imports(source)
        if found.name.partition(".")[0] in refused
    ]
    assert not upwards, (
        f"{layer} may import only {', '.join(sorted(LAYERS[layer]))} of ours, but see {', '.join(upwards)}. "
        "The order is cluster -> actors -> model, and protos <- cluster: move the shared type down "
        "(model/batch.py is the contract of both planes), or pass the object in from above"
    )


def test_policies_import_the_standard_library_and_plain_data_only() -> None:
    impure = [
        f"{found.where} ({found.name})"
        for source in sources("cluster/policy")
        for found in imports(source)
        if not any(found.within(module) for module in PLAIN_DATA)
        and found.name.partition(".")[0] not in sys.stdlib_module_names - NOT_IN_A_POLICY
    ]
    assert not impure, (
        f"a policy only decides, but see {', '.join(impure)}. Besides {', '.join(PLAIN_DATA)} "
        f"it may import the stdlib without {', '.join(sorted(NOT_IN_A_POLICY))}: take the time as "
        "an argument (now: float, in seconds), and random draws too; return what others should log or do"
    )


@pytest.mark.parametrize("source", sources("tests/unit"))
def test_unit_tests_do_not_start_ray(source: str) -> None:
    started = [name.where for name in imports(source) if name.name in {"ray.init", "ray.remote"}]
    for node in ast.walk(tree(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="ray"), attr="init" | "remote", lineno=line):
                started.append(f"{source}:{line}")
    assert not started, (
        f"a unit test starts Ray in {', '.join(started)}: construct the plain class with a fake from "
        "tests/fakes.py, or move the test to tests/integration"
    )


def test_the_import_reader_sees_every_form(tmp_path: Path) -> None:
    folder = tmp_path / "cluster" / "policy"
    folder.mkdir(parents=True)
    (folder / "load.py").write_text(
        "import a.b as c\n"
        "from d import e, f\n"
        "from . import g\n"
        "from .h import i\n"
        "from .. import j\n"
        "def later():\n"
        "    import k\n"
        "    importlib.import_module('l.m')\n"
        "    __import__('n')\n"
    )
    found = {name.name for name in imports("cluster/policy/load.py", tmp_path)}
    expected = "a.b d.e d.f cluster.policy.g cluster.policy.h.i cluster.j k l.m n"
    assert found == set(expected.split())
    assert module_name("cluster/policy/load.py") == "cluster.policy.load"
    assert module_name("cluster/policy/__init__.py") == "cluster.policy"
