"""Run real clients against a server of their own and print what each makes of it.

python -m tests.clients [CLIENT ...] [--short] [--venvs FOLDER] [--skip-unable] [--publish FILE]
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import report, say
from tests.clients import chaos
from tests.clients.catalogue import CLIENTS
from tests.clients.checkpoint import NAME, write_checkpoint, write_tokenizer
from tests.clients.checks import Target
from tests.clients.outcome import Outcome, run
from tests.clients.server import NARROW, serving, write_token

_ROOT = Path(__file__).resolve().parents[2]
CHAOS = "chaos"
TITLE = "Real clients at the OpenAI-compatible door"
HEADER = ("client", "releases", "passed", "failed", "seconds", "notes")
NOTES = """Two layers of random numbers with Mixtral's vocabulary and template, in fp32; head and experts in one
process, without Ray, but for *chaos*: there 16 streams run while experts and the head are killed."""


def main() -> int:
    """The exit code is 1 if a check failed, or a client could not be installed where that is not to be skipped."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=(__doc__ or "").splitlines()[0])
    names = (*CLIENTS, CHAOS)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=", ".join(names))
    parser.add_argument("--short", action="store_true", help="the ones that CI runs")
    parser.add_argument("--kills", type=int, default=20, help="of chaos")
    parser.add_argument("--venvs", type=Path, default=_ROOT / "build" / "clients", help="where their environments are")
    parser.add_argument("--skip-unable", action="store_true", help="a client that cannot be installed is no failure")
    parser.add_argument("--publish", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args()
    short = [name for name, client in CLIENTS.items() if client.short]
    usual = [*(name for name, client in CLIENTS.items() if not client.heavy), CHAOS]
    wanted = arguments.clients or (short if arguments.short else usual)
    if unknown := [name for name in wanted if name not in names]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="ew-clients-") as folder:
        outcomes = _run(wanted, Path(folder), arguments)
    command = " ".join(["python -m tests.clients", *sys.argv[1:]])
    text = report(command, TITLE, HEADER, [outcome.cells() for outcome in outcomes], NOTES)
    print(text, flush=True)
    if arguments.publish:
        arguments.publish.write_text(text, encoding="utf-8")
    lacking = [outcome.client for outcome in outcomes if outcome.lack]
    if lacking and arguments.skip_unable:
        say(f"skipped, because pip could not install them: {', '.join(lacking)}")
    good = all(not outcome.failed for outcome in outcomes) and (arguments.skip_unable or not lacking)
    return 0 if good else 1


def _run(wanted: list[str], folder: Path, arguments: argparse.Namespace) -> list[Outcome]:
    checkpoint, outcomes = write_checkpoint(folder), []
    if clients := [name for name in wanted if name in CLIENTS]:
        if any(CLIENTS[name].oracle for name in clients):
            from tests.clients.oracle import write_expected  # transformers take seconds to import

            say("what transformers expect")
            write_expected(checkpoint, folder / "expected.json")
        with _servers(checkpoint, folder) as target:
            for name in clients:
                say(name)
                outcomes.append(run(name, CLIENTS[name], target, arguments.venvs))
    if CHAOS in wanted:
        say(CHAOS)
        outcomes.append(chaos.run(checkpoint, folder, arguments.venvs, arguments.kills))
    return outcomes


@contextlib.contextmanager
def _servers(checkpoint: Path, folder: Path) -> Iterator[Target]:
    write_tokenizer(folder / "tokenizer")
    token = write_token(folder / "tokens")
    narrow = (*NARROW, f"security.token_file={folder / 'tokens'}")
    with serving(checkpoint) as usual, serving(checkpoint, *narrow) as other:
        yield Target(usual.http, other.http, token, NAME, str(folder))


if __name__ == "__main__":
    sys.exit(main())
