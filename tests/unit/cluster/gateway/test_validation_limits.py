"""What a request is checked against that the demo checkpoint cannot show: chat, padding, a cache without a window."""

from dataclasses import replace

import pytest

from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import ApiError, ErrorKind
from cluster.gateway.validation import Validator
from cluster.policy.scheduling.limits import Limits
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.text_folders import V1, with_vocabulary

ROOMY = Limits(8, 64, 10_000, 16)


@pytest.fixture(scope="module")
def chatty(demo: ServedModel) -> ServedModel:
    """A model with Mixtral's own vocabulary, padded by 64 ids."""
    served = with_vocabulary(demo, V1)
    config = replace(demo.checkpoint.config, vocab_size=served.tokenizer.vocab_size + 64)
    return replace(served, id="chatty", checkpoint=replace(demo.checkpoint, config=config))


def refused(served: ServedModel, request: pb.GenerateRequest, limits: Limits = ROOMY) -> ApiError:
    with pytest.raises(ApiError) as caught:
        Validator(served).generation(request, limits)
    return caught.value


def chat(*turns: tuple[pb.Role.ValueType, str], final: bool = False) -> pb.GenerateRequest:
    messages = [pb.ChatMessage(role=role, content=content) for role, content in turns]
    return pb.GenerateRequest(prompt=pb.Prompt(chat=pb.Chat(messages=messages, continue_final_message=final)))


def of_ids(*ids: int, max_tokens: int | None = 1) -> pb.GenerateRequest:
    prompt = pb.Prompt(token_ids=pb.TokenIds(ids=ids))
    return pb.GenerateRequest(prompt=prompt, stopping=pb.Stopping(max_tokens=max_tokens))


def test_a_conversation_becomes_the_template_s_ids(chatty: ServedModel) -> None:
    request = chat((pb.ROLE_SYSTEM, "Be terse."), (pb.ROLE_USER, "Hi"))
    wanted = Validator(chatty).generation(request, ROOMY)
    assert chatty.tokenizer.decode(wanted.sequence.prompt_ids) == "[INST] Be terse.\n\nHi [/INST]"
    assert wanted.sequence.prompt_ids[0] == chatty.tokenizer.bos_id
    opened = Validator(chatty).generation(chat((pb.ROLE_USER, "Hi"), (pb.ROLE_ASSISTANT, "Oh"), final=True), ROOMY)
    assert chatty.tokenizer.decode(opened.sequence.prompt_ids).endswith("[/INST] Oh")


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (chat(), "prompt.chat.messages: "),
        (chat((pb.ROLE_UNSPECIFIED, "a"), (pb.ROLE_USER, "b")), "prompt.chat.messages[0].role: "),
        (chat((7, "a")), "prompt.chat.messages[0].role: "),  # type: ignore[arg-type]
        (chat((pb.ROLE_USER, "a"), (pb.ROLE_ASSISTANT, "b")), "prompt.chat.messages: "),
        (chat((pb.ROLE_USER, "a"), final=True), "prompt.chat.messages: "),
    ],
)
def test_a_conversation_that_the_template_cannot_express_is_refused(
    request_: pb.GenerateRequest, path: str, chatty: ServedModel
) -> None:
    error = refused(chatty, request_)
    assert error.kind is ErrorKind.INVALID
    assert error.text.startswith(path)


def test_very_many_wrong_messages_are_cut_short(chatty: ServedModel) -> None:
    assert len(refused(chatty, chat(*[(pb.ROLE_UNSPECIFIED, "a")] * 5000)).text) <= 1000


def test_ids_of_a_padded_embedding_may_be_sent_and_biased(chatty: ServedModel) -> None:
    padding = chatty.tokenizer.vocab_size + 63
    request = of_ids(padding)
    request.sampling.logit_bias[padding] = -100
    assert Validator(chatty).generation(request, ROOMY).sequence.prompt_ids == (padding,)
    assert "ids are 0 to 32063" in refused(chatty, of_ids(padding + 1)).text


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "path"),
    [(10, 55, "stopping.max_tokens"), (64, 1, "stopping.max_tokens"), (64, None, "prompt"), (500, None, "prompt")],
)
def test_what_exceeds_the_whole_kv_cache_is_refused(
    prompt: int, max_tokens: int | None, path: str, demo: ServedModel
) -> None:
    request = of_ids(*[5] * prompt, max_tokens=max_tokens)
    error = refused(demo, request, Limits(4, 16, page_count=16, page_size=4))
    assert error.kind is ErrorKind.INVALID
    assert error.text.startswith(f"{path}: ") and "KV cache of 64 tokens" in error.text
    assert "kv.memory_bytes" in error.text
    asked = {"promptTokens": str(prompt), "maxTokens": str(max_tokens or 1)}
    assert error.metadata == asked | {"contextLength": "64"}, "what can be served"


@pytest.mark.parametrize(("limits", "expected"), [(Limits(4, 16, 16, 4), 54), (ROOMY, 4086)])
def test_without_max_tokens_an_output_may_fill_context_and_cache(
    limits: Limits, expected: int, demo: ServedModel
) -> None:
    wanted = Validator(demo).generation(of_ids(*[5] * 10, max_tokens=None), limits)
    assert wanted.sequence.max_tokens == expected


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"n": 8, "logprobs": 20, "max_tokens": 3000}, "stopping.max_tokens"),
        ({"n": 1, "logprobs": -1, "prompt_logprobs": 20, "max_tokens": 1}, "output.prompt_logprobs"),
    ],
)
def test_an_answer_that_may_exceed_what_clients_take_is_refused_before_the_work(
    fields: dict[str, int], path: str, demo: ServedModel
) -> None:
    config = replace(demo.checkpoint.config, max_position_embeddings=32768)
    long = replace(demo, checkpoint=replace(demo.checkpoint, config=config))
    request = of_ids(*[5] * (30_000 if "prompt_logprobs" in fields else 10), max_tokens=fields["max_tokens"])
    request.n = fields["n"]
    if fields["logprobs"] >= 0:
        request.output.logprobs = fields["logprobs"]
    if "prompt_logprobs" in fields:
        request.output.prompt_logprobs = fields["prompt_logprobs"]
    limits = Limits(8, 64, 100_000, 16)
    Validator(long).generation(request, limits)  # a stream may
    with pytest.raises(ApiError) as caught:
        Validator(long).generation(request, limits, whole=True)
    assert caught.value.text.startswith(f"{path}: ") and "use GenerateStream" in caught.value.text
    request.stopping.ClearField("max_tokens")
    if path == "stopping.max_tokens":
        cut = Validator(long).generation(request, limits, whole=True).sequence.max_tokens
        assert 0 < cut < 3000, "nobody asked for more than fits"


def test_the_most_tokens_are_those_that_fit(demo: ServedModel) -> None:
    assert Limits(4, 16, 16, 4).most_tokens == 64
    assert Limits(4, 16, page_count=10, page_size=16, window=128).most_tokens == (1 << 31) - 1
    assert Limits(4, 16, page_count=5, page_size=16, window=128).most_tokens == 80


def test_what_the_cache_holds_is_said_in_tokens_and_contexts(demo: ServedModel) -> None:
    assert demo.capacity(Limits(4, 16, 1024, 16)) == "KV cache: 16,384 tokens, 4 whole contexts of 4,096"
    assert demo.capacity(Limits(4, 16, 10, 16)).endswith("longer requests are refused; raise kv.memory_bytes")


def test_chat_is_refused_where_the_folder_asks_for_another(chatty: ServedModel) -> None:
    other = replace(chatty, chat_format="has another chat template")
    assert chatty.chat and not other.chat
    assert "has another chat template; send prompt.text" in refused(other, chat((pb.ROLE_USER, "Hi"))).text


def test_under_a_window_the_whole_context_fits_a_small_cache(demo: ServedModel) -> None:
    small = Limits(4, 16, page_count=10, page_size=16, window=128)
    request = of_ids(*[5] * 4000, max_tokens=96)
    assert Validator(demo).generation(request, small).sequence.max_tokens == 96
