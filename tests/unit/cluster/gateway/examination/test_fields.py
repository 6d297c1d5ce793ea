"""Fields are counted from the bytes alone."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.gateway.examination.fields import has_more_fields
from protos.eightwinds.v1 import inference_pb2 as pb

KIND = pb.GenerateRequest.DESCRIPTOR


def counted(raw: bytes) -> int:
    """The count, found by asking."""
    return next(most for most in range(len(raw) + 1) if not has_more_fields(raw, KIND, most))


def test_inner_messages_count_and_a_packed_list_is_one_field() -> None:
    chat = pb.Chat(messages=[pb.ChatMessage(role=pb.ROLE_USER, content="x" * 50)] * 3)
    raw = pb.GenerateRequest(prompt=pb.Prompt(chat=chat), priority=3).SerializeToString()
    assert counted(raw) == 1 + 1 + 3 * (1 + 2) + 1  # prompt, chat, messages of two fields, priority
    ids = pb.GenerateRequest(prompt=pb.Prompt(token_ids=pb.TokenIds(ids=range(5000)))).SerializeToString()
    assert not has_more_fields(ids, KIND, 3)


def test_a_million_empty_messages_are_seen_before_they_are_made() -> None:
    many = b"\x0a\x00" * 1_000_000
    chat = b"\x1a\x80\x89\x7a" + many  # prompt.chat, two million bytes long
    raw = b"\x12\x84\x89\x7a" + chat
    assert len(pb.GenerateRequest.FromString(b"\x12\x04\x1a\x02\x0a\x00").prompt.chat.messages) == 1
    assert has_more_fields(raw, KIND, 100_000)


@given(st.binary(max_size=200), st.integers(0, 50))
def test_malformed_bytes_are_left_to_the_parser(raw: bytes, most: int) -> None:
    try:
        has_more_fields(raw, KIND, most)
    except (IndexError, ValueError):
        return
