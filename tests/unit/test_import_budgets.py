"""What a command, a client program or a policy must not load, looked up in an interpreter of its own."""

import subprocess
import sys

import pytest

from tests.source_tree import ROOT, WITHOUT_TORCH, module_name, sources

HEAVY = ("torch", "ray", "grpc", "transformers")

# module: what it must not load, be it through others
BUDGETS = {
    "cluster.cli.app": HEAVY,
    "cluster.client.client": ("torch", "ray", "transformers"),
    "cluster.gateway.examination.process": ("torch", "ray", "transformers"),
    **{module_name(source): HEAVY for source in WITHOUT_TORCH},
    **{module_name(source): (*HEAVY, "numpy", "pydantic") for source in sources("cluster/policy")},
}

# Notes who asks for a refused package first, runs the statement, and prints the packages that got in.
PROBE = """
import sys, traceback
statement, root, *refused = sys.argv[1:]
asked = {}
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in refused:
            frames = [f for f in traceback.extract_stack() if f.filename.startswith(root)]
            asked.setdefault(name, " -> ".join(f"{f.filename}:{f.lineno}" for f in frames))
sys.meta_path.insert(0, Finder())
try:
    exec(statement)
except SystemExit as end:
    assert not end.code, end
print("LOADED", "; ".join(f"{name} (by way of {asked.get(name)})" for name in refused if name in sys.modules))
"""


def _loads(statement: str, refused: tuple[str, ...]) -> tuple[str, str]:
    """What of `refused` is loaded after `statement`, and what the statement printed."""
    command = [sys.executable, "-c", PROBE, statement, f"{ROOT}/", *refused]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, f"{statement!r} fails in a fresh interpreter:\n{run.stderr}"
    printed, _, loaded = run.stdout.rpartition("LOADED")
    return loaded.strip().replace(f"{ROOT}/", ""), printed


@pytest.mark.parametrize("module", BUDGETS)
def test_importing_stays_within_its_budget(module: str) -> None:
    loaded, _ = _loads(f"import {module}", BUDGETS[module])
    assert not loaded, (
        f"importing {module} loads {loaded}. Import it inside the function that needs it, or split what "
        "needs it into a module of its own"
    )


@pytest.mark.parametrize("arguments", ["--help", "serve --help", "generate --help"])
def test_help_loads_nothing_heavy(arguments: str) -> None:
    command = f"import runpy; sys.argv = ['eightwinds', *{arguments.split()!r}]"
    run = "runpy.run_module('cluster.cli', run_name='__main__')"
    loaded, printed = _loads(f"{command}; {run}", HEAVY)
    assert "Usage" in printed, "`python -m cluster.cli --help` prints no usage: call main() under __main__"
    assert not loaded, f"`eightwinds {arguments}` loads {loaded}: a command imports what it runs, when it runs"


def test_importing_changes_nothing_in_the_process() -> None:
    """What a module does to logging or warnings it does when it is told to, not to whoever imports it."""
    statement = """
import logging, warnings
import torch, grpc
before = list(warnings.filters)
import cluster.gateway.rpc.server, cluster.launch.in_process, model.wire
assert warnings.filters == before, set(map(str, warnings.filters)) - set(map(str, before))
ours = [n for n, logger in logging.root.manager.loggerDict.items() if getattr(logger, "filters", None)]
assert not ours and not logging.root.handlers, (ours, logging.root.handlers)
"""
    done = subprocess.run([sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
