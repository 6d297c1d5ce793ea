"""The token file: what it may hold, whose token it is, and what happens when it changes."""

import logging
import os
import stat
from pathlib import Path

import pytest

from cluster.settings.tokens import (
    Holder,
    Scope,
    TokenFile,
    append,
    distrusted,
    find,
    keep_secret,
    new_token,
    parse,
    parse_scopes,
)

INFERENCE = frozenset({Scope.INFERENCE})
ZEROS = "sha256:" + "0" * 64


def test_a_token_is_found_by_its_hash_alone() -> None:
    alice, entry_a = new_token("alice", [Scope.INFERENCE])
    ops, entry_o = new_token("ops", [Scope.CLUSTER, Scope.INFERENCE])
    entries = parse(f"# tokens\n\n{entry_a.line()}\n{entry_o.line()}  # the pager\n")
    assert entries == [entry_a, entry_o]
    assert find(alice, entries) == Holder("alice", INFERENCE)
    assert find(ops, entries) == Holder("ops", frozenset(Scope))
    assert find(alice + "x", entries) is find("", entries) is find("\udcff", entries) is None
    assert alice not in entry_a.line()


def test_a_callers_tokens_may_overlap_while_one_is_replaced() -> None:
    old, entry_old = new_token("alice", [Scope.INFERENCE])
    new, entry_new = new_token("alice", [Scope.INFERENCE])
    assert old != new
    assert find(old, [entry_old, entry_new]) == find(new, [entry_old, entry_new])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("alice", "line 2: write NAME SCOPE"),
        (f"alice inference {ZEROS} more", "line 2: after the hash there may be priority=N"),
        (f"alice inference {ZEROS} priority=1 more", "line 2: write NAME SCOPE"),
        (f"al/ice inference {ZEROS}", "line 2: a name has"),
        (f"alice root {ZEROS}", "line 2: scopes are inference and cluster"),
        (f"alice inference, {ZEROS}", "line 2: scopes are"),
        ("alice inference ew_the-token-itself", "line 2: a hash is"),
        (f"alice inference {ZEROS[:-1]}", "line 2: a hash is"),
    ],
)
def test_a_wrong_line_is_named_but_not_shown(line: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse(f"bob inference {ZEROS}\n{line}\n")
    assert "ew_the-token-itself" not in str(caught.value)


def test_every_wrong_line_is_named() -> None:
    with pytest.raises(ValueError, match=r"line 1: .*line 3: "):
        parse(f"wrong\nbob inference {ZEROS}\nwrong\n")


def test_scopes_between_commas() -> None:
    assert parse_scopes("cluster,inference") == frozenset(Scope)
    with pytest.raises(ValueError, match="inference and cluster"):
        parse_scopes("")


def test_a_new_file_is_its_owners_alone_and_an_old_one_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    _, first = new_token("alice", [Scope.INFERENCE])
    _, second = new_token("bob", [Scope.CLUSTER])
    append(path, first)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n"), encoding="utf-8")  # an editor's last line
    append(path, second)
    assert parse(path.read_text(encoding="utf-8")) == [first, second]


def test_a_file_that_is_none_of_tokens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("dear diary\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is no token file"):
        append(path, new_token("alice", [Scope.INFERENCE])[1])
    assert path.read_text(encoding="utf-8") == "dear diary\n"


@pytest.mark.parametrize(("content", "says"), [(None, "cannot be read"), (b"x", "is wrong"), (b"\xff", "is wrong")])
def test_a_file_without_tokens_is_refused_at_the_start(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=says):
        TokenFile(path)


def test_an_empty_file_would_lock_everybody_out(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("# nobody yet\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no token"):
        TokenFile(path)


def test_a_changed_file_counts_from_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    alice, entry_a = new_token("alice", [Scope.INFERENCE])
    bob, entry_b = new_token("bob", [Scope.INFERENCE])
    append(path, entry_a)
    tokens = TokenFile(path)
    assert tokens.find(alice) and not tokens.find(bob)
    replacement = tmp_path / "new"
    append(replacement, entry_b)
    os.replace(replacement, path)
    assert tokens.find(bob) and not tokens.find(alice), "revoked at once"
    path.write_text("", encoding="utf-8")
    assert not tokens.find(bob), "an operator may revoke them all"


def test_a_file_gone_wrong_keeps_its_last_good_state_and_is_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens"
    alice, entry = new_token("alice", [Scope.INFERENCE])
    append(path, entry)
    tokens = TokenFile(path)
    with caplog.at_level(logging.ERROR, "eightwinds.tokens"):
        path.write_text("half a li", encoding="utf-8")
        assert tokens.find(alice) and tokens.find(alice)
        assert len(caplog.records) == 1 and "is kept as it was" in caplog.text
        path.unlink()
        assert tokens.find(alice) and tokens.find(alice)
        assert len(caplog.records) == 2


def test_a_secret_is_written_for_its_owners_eyes_and_over_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keep_secret(tmp_path / "alice", "ew_secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "alice").stat().st_mode) == 0o600
    assert (tmp_path / "alice").read_text(encoding="utf-8") == "ew_secret\n"
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("alice", "link"):
        with pytest.raises(ValueError, match="exists already"):
            keep_secret(tmp_path / name, "ew_other")
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ValueError, match="cannot be written"):
        keep_secret(tmp_path / "none" / "alice", "ew_secret")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_to_decides_nothing(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    append(path, new_token("alice", [Scope.INFERENCE])[1])
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"others may write to it .mode {mode:o}.: chmod 600"):
        TokenFile(path)


def test_a_file_opened_to_others_while_it_is_used_keeps_its_last_good_state(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    alice, entry = new_token("alice", [Scope.INFERENCE])
    mallory, intruder = new_token("mallory", [Scope.CLUSTER])
    append(path, entry)
    tokens = TokenFile(path)
    path.chmod(0o666)
    append(path, intruder)
    assert tokens.find(alice) and not tokens.find(mallory)
    path.chmod(0o600)
    assert tokens.find(mallory), "the operator has closed it, and it counts again"


def test_a_file_of_another_user_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    append(path, new_token("alice", [Scope.INFERENCE])[1])
    own = path.stat().st_uid
    assert distrusted(path.stat(), {own}) == ""
    assert f"belongs to user {own}: chown" in distrusted(path.stat(), {own + 1})


def test_a_token_has_a_highest_priority() -> None:
    _, entry = new_token("ops", [Scope.INFERENCE], 40)
    assert entry.line().endswith(" priority=40") and parse(entry.line()) == [entry]
    _, plain = new_token("alice", [Scope.INFERENCE])
    assert "priority" not in plain.line() and parse(plain.line())[0].holder.highest_priority == 0
    for wrong in ("priority=101", "priority=x", "prio=3", "40"):
        with pytest.raises(ValueError, match="priority=N"):
            parse(f"{plain.line()} {wrong}")
