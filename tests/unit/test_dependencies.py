"""What the packages import is what pyproject.toml declares, and the pins hold it."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest

from tests.source_tree import PACKAGES, ROOT, imports, sources

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = packages_distributions()


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(requirements: list[str]) -> set[str]:
    return {_key(re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]) for requirement in requirements}


EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
RUNTIME = _names([*PROJECT["dependencies"], *EXTRAS["gpu"], *EXTRAS["hub"]])
FROM_SOURCE = {"flash_attn_interface"}  # FlashAttention-3: no index has it, and it is used where it is found
DEVELOPER = RUNTIME | _names(EXTRAS["dev"])


def _undeclared(source: str, declared: set[str]) -> list[str]:
    roots = {found.name.partition(".")[0]: found.where for found in imports(source)}
    return [
        f"{root} in {where}"
        for root, where in roots.items()
        if root not in sys.stdlib_module_names
        and root not in (*PACKAGES, *FROM_SOURCE)
        and not declared & {_key(name) for name in (root, *DISTRIBUTIONS.get(root, ()))}
    ]


def test_what_is_imported_is_declared() -> None:
    missing = [
        found
        for source in sources(*PACKAGES)
        for found in _undeclared(source, DEVELOPER if source.startswith("model/demo/") else RUNTIME)
    ]
    assert not missing, (
        f"not a run-time dependency: {', '.join(missing)}. Declare it in pyproject.toml (dependencies, or an "
        "extra and a lazy import) and pin it with `make constraints`; what only tests need is not for here"
    )


# Imported by nothing here: what another one needs to do what it is declared for.
BY_OTHERS = {"protobuf": "the generated modules import google.protobuf"}


def test_what_is_declared_is_imported() -> None:
    roots = {found.name.partition(".")[0] for source in sources(*PACKAGES) for found in imports(source)}
    names = {_key(name) for root in roots for name in (root, *DISTRIBUTIONS.get(root, ()))}
    # Where packages share a name, such as google, a distribution counts if one of the modules imported is its own.
    idle = _names(PROJECT["dependencies"]) - names - BY_OTHERS.keys()
    assert not idle, f"declared, but imported by no package of ours: {', '.join(sorted(idle))}"


@pytest.mark.parametrize("group", ["dependencies", "dev", "hub"])
def test_what_is_declared_is_pinned(group: str) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    odd = [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)]
    assert not odd, f"constraints.txt holds NAME==VERSION only, without address or local suffix, but see {odd}"
    declared = _names(PROJECT["dependencies"] if group == "dependencies" else EXTRAS[group])
    unpinned = declared - {_key(pin.partition("==")[0]) for pin in pins}
    assert not unpinned, f"not in constraints.txt: {', '.join(sorted(unpinned))}; write it anew with `make constraints`"
