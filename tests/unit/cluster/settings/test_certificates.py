"""Certificate files of a server: what is refused at a start, and what is kept while it serves."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from cluster.launch.doctor import examine
from cluster.settings.certificates import Certificates
from tests.certificates import Authority, Pair, certificates


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def encrypt(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))


WRONG: dict[str, tuple[Callable[[Pair, Authority], object], str]] = {
    "no certificate file": (lambda pair, authority: pair.certificate.unlink(), r"crt cannot be read: No such file"),
    "no key file": (lambda pair, authority: pair.key.unlink(), r"key cannot be read: No such file"),
    "rubbish for a certificate": (
        lambda pair, authority: pair.certificate.write_text("a"),
        "holds no certificate in PEM",
    ),
    "rubbish for a key": (lambda pair, authority: pair.key.write_text("a"), "holds no private key in PEM"),
    "another's key": (
        lambda pair, authority: pair.key.write_bytes(authority.issue().key.read_bytes()),
        "is not the key of",
    ),
    "a key with a passphrase": (lambda pair, authority: encrypt(pair), "encrypted: a server needs a key without"),
    "a key that others may replace": (
        lambda pair, authority: pair.key.chmod(0o666),
        "cannot be trusted: others may write",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_start_names_the_file_and_what_is_wrong_with_it(name: str, authority: Authority) -> None:
    spoil, words = WRONG[name]
    pair = authority.issue()
    spoil(pair, authority)
    with pytest.raises(ValueError, match=words):
        certificates(pair)


def test_an_expired_certificate_is_refused_with_its_time(authority: Authority) -> None:
    with pytest.raises(ValueError, match=r"ca-1.crt expired at 2026-01-02 03:04 UTC"):
        certificates(authority.issue(until=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))


def test_an_authority_of_clients_must_be_one(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="empty holds no certificate"):
        certificates(authority.issue(), tmp_path / "empty")


def test_one_that_is_not_valid_yet_is_refused(authority: Authority) -> None:
    pair = authority.issue()
    with pytest.raises(ValueError, match=r"is valid only from 2020-01-01"):
        Certificates(pair.certificate, pair.key, clock=lambda: datetime(2019, 1, 1, tzinfo=UTC))


def test_an_authority_that_others_may_replace_is_refused(authority: Authority) -> None:
    authority.file.chmod(0o666)
    with pytest.raises(ValueError, match="cannot be trusted: others may write"):
        certificates(authority.issue(), authority.file)


def test_a_file_that_becomes_readable_is_read_without_a_change_of_its_own(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [datetime.now(UTC)]
    pair = authority.issue()
    kept = Certificates(pair.certificate, pair.key, clock=lambda: now[0])
    first, read = kept.current(), Path.read_bytes
    pair.replace(authority.issue())

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refused)
    assert kept.current() is first
    monkeypatch.setattr(Path, "read_bytes", read)
    assert kept.current() is first, "not with every connection"
    now[0] += timedelta(seconds=5)
    assert kept.current().chain == pair.certificate.read_bytes()


def test_a_replaced_pair_is_read_again_once_both_files_fit(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pair, other = authority.issue(), authority.issue()
    kept = certificates(pair)
    first = kept.current()
    assert kept.current() is first
    new_key = other.key.read_bytes()
    pair.certificate.write_bytes(other.certificate.read_bytes())
    assert kept.current() is first, "the key does not fit yet"
    assert "is kept as it was" in caplog.text and "is not the key of" in caplog.text
    assert kept.current() is first and caplog.text.count("is kept as it was") == 1, "said once for a state of the files"
    pair.key.write_bytes(new_key)
    assert kept.current().chain == other.certificate.read_bytes()
    assert "valid until" in caplog.text


def test_one_that_expires_while_serving_stays_until_another_comes(authority: Authority) -> None:
    now = [datetime.now(UTC)]
    pair = authority.issue(until=now[0] + timedelta(hours=1))
    kept = Certificates(pair.certificate, pair.key, clock=lambda: now[0])
    first = kept.current()
    now[0] += timedelta(hours=2)
    assert kept.current() is first and "expired at" in first.warning(now[0])
    pair.certificate.touch()
    assert kept.current() is first, "no better than what there was"
    pair.replace(authority.issue())
    assert not kept.current().warning(now[0])


def finding(*settings: str) -> tuple[str, str]:
    (found,) = [f for f in examine(None, ["gateway.listen=127.0.0.1:0", *settings]) if f.subject == "tls"]
    return found.level, found.text


def test_doctor_looks_at_the_certificate(authority: Authority) -> None:
    assert finding() == ("ok", "none: what is sent can be read on its way")
    good, soon = authority.issue(), authority.issue(until=datetime.now(UTC) + timedelta(days=3))
    given = [f"security.certificate={good.certificate}", f"security.key={good.key}"]
    level, text = finding(*given)
    assert level == "ok" and "valid until" in text
    assert finding(*given, f"security.client_ca={authority.file}")[1].endswith("clients must show one")
    level, text = finding(f"security.certificate={soon.certificate}", f"security.key={soon.key}")
    assert level == "warn" and "expires at" in text
    assert finding(f"security.certificate={good.certificate}", f"security.key={soon.key}")[0] == "fail"
