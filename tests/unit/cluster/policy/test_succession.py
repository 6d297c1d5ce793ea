"""When a server that stands by may lead: at once after a certain end, after a while without a sign of life."""

from cluster.policy.succession import Lead, Succession, read_lead

LEAD = Lead(term=3, job="7", place="there", beat=1)


def test_where_nobody_leads_or_the_last_one_has_let_go_the_place_is_open() -> None:
    assert Succession(5.0).is_open(None, ended=False, now=0.0)
    assert Succession(5.0).is_open(Lead(3, "7", "there", over=True), ended=False, now=0.0)


def test_a_process_that_has_ended_for_certain_leads_no_more() -> None:
    assert Succession(5.0).is_open(LEAD, ended=True, now=0.0)


def test_one_that_gives_signs_leads_however_old_its_record_looks() -> None:
    succession = Succession(5.0)
    for second in range(100):
        assert not succession.is_open(Lead(3, "7", "there", beat=second // 4), ended=False, now=float(second))


def test_one_without_a_sign_is_gone_after_the_patience_that_begins_with_the_first_look() -> None:
    succession = Succession(5.0)
    assert not succession.is_open(LEAD, ended=False, now=1000.0)
    assert not succession.is_open(LEAD, ended=False, now=1005.0)
    assert succession.is_open(LEAD, ended=False, now=1005.1)


def test_the_patience_begins_anew_with_another_server() -> None:
    succession = Succession(5.0)
    succession.is_open(LEAD, ended=False, now=0.0)
    assert not succession.is_open(Lead(4, "8", "here", beat=1), ended=False, now=6.0)


def test_a_record_of_a_newer_version_is_read() -> None:
    record = LEAD.to_bytes()
    assert read_lead(record) == LEAD
    assert read_lead(record.replace(b"{", b'{"colour": "red", ')) == LEAD
    assert read_lead(None) is None
