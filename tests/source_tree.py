"""What stands in the checkout and what each file of it imports: the ground of the architecture tests."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cluster", "actors", "model", "protos")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "examples", "scripts")

# The planes' contract and the files that only read bytes and text.
WITHOUT_TORCH = (
    "model/__init__.py",
    "model/config.py",
    "model/batch.py",
    "model/checkpoint/entries.py",
    "model/checkpoint/files.py",
    "model/checkpoint/folder.py",
    "model/checkpoint/layouts.py",
    "model/checkpoint/packing.py",
    "model/checkpoint/params.py",
    "model/text/tokenizer.py",
    "model/text/text_files.py",
    "model/text/merges.py",
    "model/chat/calls.py",
    "model/chat/conversation.py",
    "model/chat/formats.py",
    "model/text/detokenizer.py",
    "model/constraint/grammar.py",
)


class Import(NamedTuple):
    """One imported name, `from a.b import c` being `a.b.c`, and where it stands."""

    name: str
    where: str

    def within(self, package: str) -> bool:
        """Whether this is `package` or something in it."""
        return self.name == package or self.name.startswith(f"{package}.")


def generated(path: Path) -> bool:
    """Whether a generator wrote this file."""
    return path.stem.endswith(("_pb2", "_pb2_grpc"))


def sources(*folders: str) -> list[str]:
    """The Python files below these folders of the checkout that people write, as paths from its root."""
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [path.relative_to(ROOT).as_posix() for path in found if not generated(path)]


def module_name(source: str) -> str:
    """`cluster/policy/load.py` -> `cluster.policy.load`; a package's `__init__.py` -> the package."""
    return source.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def tree(source: str, root: Path = ROOT) -> ast.Module:
    """The parsed file."""
    return ast.parse((root / source).read_text(encoding="utf-8"), source)


def imports(source: str, root: Path = ROOT) -> Iterator[Import]:
    """Every import of a file: at its top, inside functions, for type checkers only, or through importlib."""
    for node in ast.walk(tree(source, root)):
        where = f"{source}:{getattr(node, 'lineno', 0)}"
        for name in _names(node, source):
            yield Import(name, where)


def _names(node: ast.AST, source: str) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            parents = source.split("/")[:-1]
            above = parents[: len(parents) - level + 1] if level else []
            base = ".".join([*above, *([module] if module else [])])
            return [f"{base}.{alias.name}" for alias in names]
        case ast.Call(func=ast.Name(id="__import__"), args=[ast.Constant(value=str(name)), *_]):
            return [name]
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []
