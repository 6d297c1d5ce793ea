"""Tokenize, Detokenize and ListModels; and ids that a padded embedding has beyond the vocabulary."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cluster.engine.served_model import ServedModel
from model.batch import SamplingParams
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.engines import output_text
from tests.fakes import FakeHead, scripted
from tests.serving import Serving, failure

ServeFake = Callable[..., Serving]

TEXTS = [
    "My favourite condiment is",
    "",
    " two  spaces",
    "</s> stays text",
    "def f(x):\n    return x",
    "caf\u00e9 \u20ac \U0001f9c2",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_from_its_ids(text: str, serving: Serving) -> None:
    stub = serving.client.stub
    ids = stub.Tokenize(pb.TokenizeRequest(model="demo", prompt=pb.Prompt(text=text))).token_ids
    assert ids[0] == serving.served.tokenizer.bos_id
    assert stub.Detokenize(pb.DetokenizeRequest(token_ids=ids)).text == text


def test_ids_are_their_own_prompt(serving: Serving) -> None:
    prompt = pb.Prompt(token_ids=pb.TokenIds(ids=[5, 1, 7]))
    assert list(serving.client.stub.Tokenize(pb.TokenizeRequest(prompt=prompt)).token_ids) == [5, 1, 7]


def test_control_tokens_are_written_if_asked_for(serving: Serving) -> None:
    request = pb.DetokenizeRequest(token_ids=[1, *serving.served.tokenizer.encode("hi", bos=False), 2])
    assert serving.client.stub.Detokenize(request).text == "hi"
    request.special_tokens = True
    assert serving.client.stub.Detokenize(request).text.startswith("<s>")


def test_bytes_that_are_no_utf8_become_replacement_characters(serving: Serving) -> None:
    lone = next(i for i in range(300) if serving.served.tokenizer.token_bytes(i) == b"\xff")
    assert serving.client.stub.Detokenize(pb.DetokenizeRequest(token_ids=[lone])).text == "\ufffd"


def test_no_ids_are_no_text(serving: Serving) -> None:
    assert serving.client.stub.Detokenize(pb.DetokenizeRequest()).text == ""


def test_the_model_is_described(serving: Serving) -> None:
    answer = serving.client.stub.ListModels(pb.ListModelsRequest(page_size=1))
    assert answer.next_page_token == ""
    (model,) = answer.models
    config = serving.served.checkpoint.config
    assert (model.id, model.architecture, model.ready, model.chat) == ("demo", "MixtralForCausalLM", True, False)
    assert (model.vocab_size, model.context_length) == (config.vocab_size, config.max_position_embeddings)
    assert (model.layer_count, model.expert_count, model.experts_per_token) == (config.num_hidden_layers, 8, 2)
    assert list(model.eos_token_ids) == [2]


def test_the_default_sampling_is_the_checkpoint_s(serve_fake: ServeFake, demo: ServedModel) -> None:
    default = SamplingParams(temperature=0.5, top_p=0.25, top_k=7, min_p=0.125, repetition_penalty=1.5)
    head = FakeHead()
    server = serve_fake(head, replace(demo, default_sampling=default))
    told = server.client.models()[0].default_sampling
    assert (told.temperature, told.top_p, told.top_k, told.min_p, told.repetition_penalty) == (0.5, 0.25, 7, 0.125, 1.5)
    request = pb.GenerateRequest(prompt=pb.Prompt(text="a"), sampling=pb.Sampling(top_p=1, top_k=0, seed=3))
    request.stopping.max_tokens = 1
    server.client.generate(request)
    used = head.plans[0].admit[0].sampling
    assert (used.temperature, used.min_p, used.repetition_penalty, used.seed) == (0.5, 0.125, 1.5, 3), "absent ones"
    assert (used.top_p, used.top_k) == (1, 0), "a value that is the zero of its type counts as given"


@pytest.fixture
def padded(demo: ServedModel) -> ServedModel:
    """The demo checkpoint with an embedding of 64 rows more than its vocabulary has pieces."""
    config = replace(demo.checkpoint.config, vocab_size=demo.tokenizer.vocab_size + 64)
    return replace(demo, checkpoint=replace(demo.checkpoint, config=config))


@pytest.mark.parametrize("special_tokens", [False, True])
def test_ids_past_the_vocabulary_may_be_sampled_and_have_no_text(
    special_tokens: bool, padded: ServedModel, serve_fake: ServeFake
) -> None:
    word = padded.tokenizer.encode("the", bos=False)[-1]
    past = padded.tokenizer.vocab_size
    server = serve_fake(FakeHead(sample=scripted([word, past, word, past + 63])), padded)
    request = pb.GenerateRequest(prompt=pb.Prompt(text="a"), stopping=pb.Stopping(max_tokens=4, stop=["never"]))
    request.output.token_ids, request.output.logprobs, request.output.special_tokens = True, 2, special_tokens
    (output,) = server.client.generate(request).outputs
    assert list(output.token_ids) == [word, past, word, past + 63]
    assert output.text == output_text(padded.tokenizer, [word, word])
    assert [token.bytes for token in output.tokens][1::2] == [b"", b""]
    assert "".join(m.text for m in server.client.stream(request)) == output.text
    told = server.client.stub.Detokenize(pb.DetokenizeRequest(token_ids=output.token_ids))
    assert told.text == padded.tokenizer.decode([word, word])


def test_a_padded_id_may_stop_an_output(padded: ServedModel, serve_fake: ServeFake) -> None:
    past = padded.tokenizer.vocab_size + 1
    server = serve_fake(FakeHead(sample=scripted([300, past, 301])), padded)
    request = pb.GenerateRequest(prompt=pb.Prompt(text="a"), stopping=pb.Stopping(max_tokens=3, stop_token_ids=[past]))
    assert server.client.generate(request).outputs[0].finish.stop_token_id == past


def test_the_context_is_what_the_cache_can_serve(serve_fake: ServeFake) -> None:
    """A prompt of 200 was refused for 1,848 tokens that nobody had asked for, since the model's context was told."""
    server = serve_fake(FakeHead(page_count=16, page_size=4))
    assert server.client.models()[0].context_length == 64
    told = server.client.stub.Tokenize(pb.TokenizeRequest(prompt=pb.Prompt(text="Once")))
    assert told.context_length == 64
    prompt = pb.Prompt(token_ids=pb.TokenIds(ids=[5] * 60))
    answer = server.client.generate(pb.GenerateRequest(prompt=prompt, stopping=pb.Stopping(ignore_eos=True)))
    assert answer.usage.completion_tokens == 4
    assert answer.outputs[0].finish.reason == pb.FINISH_REASON_LENGTH


def test_an_answer_that_clients_would_not_take_is_refused(
    serve_fake: ServeFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.gateway.examination.examiner.MOST_BYTES", 100)
    server = serve_fake(FakeHead())
    text = "a b c d e f g " * 30
    ids = server.served.tokenizer.encode(text)
    for call, field in (
        (lambda: server.client.stub.Tokenize(pb.TokenizeRequest(prompt=pb.Prompt(text=text))), "prompt"),
        (lambda: server.client.stub.Detokenize(pb.DetokenizeRequest(token_ids=ids)), "token_ids"),
    ):
        assert failure(call).fields == [field]
