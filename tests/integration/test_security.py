"""A secured server lets each caller as far as it should. curl, buf and grpcurl ask, which are not ours."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.engine.served_model import ServedModel
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from tests.certificates import Authority, Pair, certificates
from tests.serving import serve_locally
from tests.source_tree import ROOT

GENERATE, STATUS = "eightwinds.v1.InferenceService/Generate", "eightwinds.v1.ClusterService/GetStatus"
BODY = json.dumps({"prompt": {"text": "My favourite"}, "stopping": {"max_tokens": 2}})
SECONDS = 60


@dataclass(frozen=True)
class Case:
    """How a caller comes, and the word by which each protocol tells it the outcome; "" means it gets no connection."""

    name: str
    grpc: str
    http: str
    method: str = GENERATE
    ca: str = "ca"
    shown: str = ""
    token: str = "alice"
    mutual: bool = False
    tls: bool = True


CASES = [
    Case("all is as it should be", "ok", "200"),
    Case("an operator asks for the status", "ok", "", STATUS, token="ops"),
    Case("no token", "UNAUTHENTICATED", "401", token=""),
    Case("an unknown token", "UNAUTHENTICATED", "401", token="unknown"),
    Case("a client's token for the status", "PERMISSION_DENIED", "", STATUS),
    Case("an operator's token for text", "PERMISSION_DENIED", "403", token="ops"),
    Case("an authority that did not sign the server", "", "", ca="stranger"),
    Case("no TLS", "", "", tls=False),
    Case("mutual", "ok", "200", shown="client", mutual=True),
    Case("mutual, and nothing shown", "", "", mutual=True),
    Case("mutual, and a stranger's certificate", "", "", shown="strange", mutual=True),
    Case("mutual, and an expired certificate", "", "", shown="expired", mutual=True),
    Case("mutual, and no token", "UNAUTHENTICATED", "401", shown="client", token="", mutual=True),
]


class Secured:
    """Two servers, one of which asks for certificates, and all that callers may come with."""

    def __init__(self, folder: Path) -> None:
        authority, stranger = Authority(folder), Authority(folder, "stranger")
        self.authorities = {"ca": authority.file, "stranger": stranger.file}
        past = datetime(2026, 1, 1, tzinfo=UTC)
        self.shown = {"client": authority.issue(), "strange": stranger.issue(), "expired": authority.issue(past)}
        self.tokens = {"unknown": "ew_unknown"}
        for name, scope in (("alice", Scope.INFERENCE), ("ops", Scope.CLUSTER)):
            self.tokens[name], entry = new_token(name, [scope])
            append(folder / "tokens", entry)
        served, pair = ServedModel.open("demo"), authority.issue()
        self.servers = {}
        for mutual, client_ca in ((False, None), (True, authority.file)):
            known = certificates(pair, client_ca)
            server = serve_locally(
                served, "kv.memory_bytes=4194304", tokens=TokenFile(folder / "tokens"), certificates=known
            )
            self.servers[mutual] = server

    def pair(self, case: Case) -> Pair | None:
        return self.shown[case.shown] if case.shown else None


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"))
    yield made
    for server in made.servers.values():
        server.close()


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT)


def buf(secured: Secured, case: Case) -> str:
    """The code that `buf curl` prints, "ok", or "" without a connection."""
    program = str(Path(sys.executable).parent / "buf")
    words = [
        program,
        "curl",
        "--schema",
        "protos",
        "--protocol",
        "grpc",
        "-d",
        BODY if case.method == GENERATE else "{}",
    ]
    if case.tls:
        words += ["--cacert", str(secured.authorities[case.ca])]
    if pair := secured.pair(case):
        words += ["--cert", str(pair.certificate), "--key", str(pair.key)]
    if case.token:
        words += ["-H", f"authorization: Bearer {secured.tokens[case.token]}"]
    if not case.tls:
        words += ["--http2-prior-knowledge"]
    address = secured.servers[case.mutual].address
    done = run(*words, f"{'https' if case.tls else 'http'}://{address}/{case.method}")
    if done.returncode == 0:
        return "ok"
    try:
        error = json.loads(done.stderr)
    except ValueError:
        return ""
    return str(error["code"]).upper() if "details" in error else ""  # without them it is the program's own


def grpcurl(secured: Secured, case: Case) -> str:
    """The code that grpcurl prints, "ok", or "" without a connection."""
    program = os.environ.get("GRPCURL") or shutil.which("grpcurl")
    if program is None:
        pytest.skip("grpcurl is not on the PATH, nor named by GRPCURL")
    words = [program, "-max-time", "20", "-import-path", ".", "-proto", f"protos/eightwinds/v1/{_file(case.method)}"]
    words += ["-cacert", str(secured.authorities[case.ca])] if case.tls else ["-plaintext"]
    if pair := secured.pair(case):
        words += ["-cert", str(pair.certificate), "-key", str(pair.key)]
    if case.token:
        words += ["-H", f"authorization: Bearer {secured.tokens[case.token]}"]
    words += ["-d", BODY if case.method == GENERATE else "{}", secured.servers[case.mutual].address, case.method]
    done = run(*words)
    if done.returncode == 0:
        return "ok"
    if "Details:" not in done.stderr:  # the program's own error
        return ""
    (code,) = (line.split(":")[1].strip() for line in done.stderr.splitlines() if line.strip().startswith("Code:"))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()


def curl(secured: Secured, case: Case) -> str:
    """The HTTP status that curl prints, "" without a connection."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not on the PATH")
    words = [
        "curl",
        "-sS",
        "--noproxy",
        "*",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        "Content-Type: application/json",
    ]
    words += ["--cacert", str(secured.authorities[case.ca]), "-d", '{"prompt": "My favourite", "max_tokens": 2}']
    if pair := secured.pair(case):
        words += ["--cert", str(pair.certificate), "--key", str(pair.key)]
    if case.token:
        words += ["-H", f"Authorization: Bearer {secured.tokens[case.token]}"]
    scheme = "https" if case.tls else "http"
    done = run(*words, f"{scheme}://{secured.servers[case.mutual].http}/v1/completions")
    return done.stdout if done.returncode == 0 else ""


def _file(method: str) -> str:
    return "inference.proto" if method == GENERATE else "cluster.proto"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_buf_gets_as_far_as_it_should(case: Case, secured: Secured) -> None:
    assert buf(secured, case) == case.grpc


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_grpcurl_gets_as_far_as_it_should(case: Case, secured: Secured) -> None:
    assert grpcurl(secured, case) == case.grpc


@pytest.mark.parametrize("case", [case for case in CASES if case.method == GENERATE], ids=lambda case: case.name)
def test_curl_gets_as_far_as_it_should(case: Case, secured: Secured) -> None:
    assert curl(secured, case) == case.http
