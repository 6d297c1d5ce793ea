"""Conversations of a tune with added tokens, from a door through its template to the model, and what they begin."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from cluster.engine.served_model import ServedModel
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.checkpoints import random_weights, tiny, write
from tests.fakes import FakeHead
from tests.logits import load_transformers
from tests.openai_door import HELLO, ask, chat
from tests.serving import Serving, serve_locally
from tests.text_folders import END, START, text_folder

ORDERS = {"the end first": {END: 32000, START: 32001}, "the start first": {START: 32000, END: 32001}}
SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where do the eight winds meet?"}]
BEGUN = [*HELLO, {"role": "assistant", "content": "My favourite"}]


def tune(folder: Path, added: dict[str, int]) -> Path:
    """A checkpoint of random numbers with ChatML's tokens and template."""
    made = tiny(vocab_size=32002, eos_token_id=added[END], max_position_embeddings=512)
    text_folder(folder, added=added, eos_token=END)
    return write(folder, made, random_weights(made))


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return ServedModel.open(str(tune(tmp_path_factory.mktemp("chatml"), ORDERS["the end first"])))


@pytest.fixture
def serving_it(chatml: ServedModel, serve_fake: Callable[..., Serving]) -> Serving:
    return serve_fake(FakeHead(), chatml)


@pytest.mark.parametrize("order", ORDERS)
def test_greedy_ids_of_a_tune_equal_transformers(order: str, tmp_path: Path) -> None:
    folder = tune(tmp_path, ORDERS[order])
    oracle, model = AutoTokenizer.from_pretrained(folder), load_transformers(folder)
    prompt = oracle.apply_chat_template(SAID, add_generation_prompt=True, return_dict=False)
    with torch.inference_mode():
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0].tolist()
    server = serve_locally(ServedModel.open(str(folder)), "kv.memory_bytes=16777216")
    try:
        roles = {"system": pb.ROLE_SYSTEM, "user": pb.ROLE_USER}
        said = [pb.ChatMessage(role=roles[m["role"]], content=m["content"]) for m in SAID]
        request = pb.GenerateRequest(prompt=pb.Prompt(chat=pb.Chat(messages=said)), sampling=pb.Sampling(temperature=0))
        request.stopping.max_tokens, request.output.token_ids = 40, True
        (output,) = server.client.stub.Generate(request).outputs
        assert [*prompt, *output.token_ids] == expected
        wanted: dict[str, Any] = {"messages": SAID, "temperature": 0, "max_tokens": 40, "ignore_eos": False}
        (choice,) = chat(server, **wanted).json["choices"]
        assert choice["message"]["content"] == output.text
    finally:
        server.close()


def test_a_message_of_the_assistant_is_continued(serving_it: Serving) -> None:
    """F24."""

    def text(**fields: Any) -> str:
        tokens = ask(serving_it, "/tokenize", {"messages": BEGUN} | fields).json["tokens"]
        return serving_it.served.tokenizer.decode(tokens, special_tokens=True).replace(" ", "")

    wanted: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
    assert text(**wanted).endswith(f"{START}assistant\nMyfavourite")
    answered = chat(serving_it, messages=BEGUN, **wanted)
    tokens = ask(serving_it, "/tokenize", {"messages": BEGUN} | wanted).json["tokens"]
    assert (answered.status, answered.json["usage"]["prompt_tokens"]) == (200, len(tokens))
    both = chat(serving_it, messages=BEGUN, continue_final_message=True, add_generation_prompt=True)
    assert (both.status, both.error["param"]) == (400, "add_generation_prompt")
    users = chat(serving_it, messages=HELLO, **wanted)
    assert (users.status, users.error["param"]) == (400, "messages"), "only the assistant's can be continued"


@pytest.mark.parametrize("messages", [HELLO, BEGUN], ids=["a user's", "an assistant's"])
def test_a_conversation_may_be_counted_without_what_opens_an_answer(
    messages: list[dict[str, str]], serving_it: Serving
) -> None:
    """F18."""

    def text(**fields: Any) -> str:
        tokens = ask(serving_it, "/tokenize", {"messages": messages} | fields).json["tokens"]
        return serving_it.served.tokenizer.decode(tokens, special_tokens=True).replace(" ", "")

    last = f"{messages[-1]['content']}{END}\n".replace(" ", "")
    assert text(add_generation_prompt=False).endswith(last)
    assert text().endswith(f"{last}{START}assistant\n")
