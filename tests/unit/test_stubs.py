"""The committed stubs belong to the protos and load. That they are up to date is `make check`'s part."""

import importlib
from pathlib import Path

import pytest

from tests.source_tree import ROOT

PROTOS = sorted((ROOT / "protos").rglob("*.proto"))
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.name)
def test_every_proto_has_stubs_that_load(proto: Path) -> None:
    missing = [suffix for suffix in SUFFIXES if not proto.with_name(proto.stem + suffix).exists()]
    assert not missing, f"{proto.name} has no {', '.join(proto.stem + suffix for suffix in missing)}: run make proto"
    package = ".".join(proto.parent.relative_to(ROOT).parts)
    importlib.import_module(f"{package}.{proto.stem}_pb2_grpc")


def test_every_stub_has_its_proto() -> None:
    stubs = [path for suffix in SUFFIXES for path in (ROOT / "protos").rglob(f"*{suffix}")]
    orphans = [path.name for path in stubs if not path.with_name(path.name.split("_pb2")[0] + ".proto").exists()]
    assert not orphans, f"no proto makes {', '.join(orphans)}: remove the file, or run make proto"
