"""A long prompt delays nobody else."""

import threading

import pytest

from model.text.tokenizer import Tokenizer
from protos.eightwinds.v1 import inference_pb2 as pb
from tests.fakes import PATIENCE
from tests.serving import Serving


@pytest.mark.parametrize(("repeats", "apart"), [(10, False), (5_000, True)])
def test_only_a_long_text_is_tokenized_apart_from_the_event_loop(
    repeats: int, apart: bool, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stop every stream for as long as the tokenizer takes."""
    threads: list[int] = []
    encode = Tokenizer.encode

    def watched(self: Tokenizer, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        threads.append(threading.get_ident())
        return encode(self, text, bos=bos, specials=specials)

    monkeypatch.setattr(Tokenizer, "encode", watched)
    prompt = pb.Prompt(text="mustard and ketchup " * repeats)
    assert serving.client.stub.Tokenize(pb.TokenizeRequest(prompt=prompt), timeout=PATIENCE).token_ids
    assert (threads != [serving.run(thread_of_the_loop())]) is apart


async def thread_of_the_loop() -> int:
    return threading.get_ident()
