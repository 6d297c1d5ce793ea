"""All dialects alike."""

from types import SimpleNamespace

import pytest

from cluster.engine.events import Finish, FinishReason
from cluster.engine.served_model import ServedModel
from cluster.engine.text import Piece
from cluster.gateway.openai.answers import Answer
from cluster.gateway.openai.dialects.dialect import Dialect
from cluster.gateway.openai.dialects.messages import MESSAGES
from cluster.gateway.openai.dialects.responses import RESPONSES
from cluster.gateway.openai.logprobs import Words
from model.batch import SampledToken
from model.chat.calls import CallPart
from tests.dialects import ABOUT, BODY, ServeFake, objects


@pytest.mark.parametrize("dialect", [MESSAGES, RESPONSES], ids=["messages", "responses"])
def test_text_behind_a_call_that_came_with_its_end_is_told_after_it(
    dialect: Dialect, hermes: ServedModel, serve_fake: ServeFake
) -> None:
    """Whatever comes at once is told in its order: the text would close the call before it is whole."""
    wanted = dialect.read({"input": "a", **BODY, "tools": [], "max_tokens": 9}, "r")
    generation = SimpleNamespace(
        request=SimpleNamespace(sequence=SimpleNamespace(prompt_ids=[1])),
        progress=SimpleNamespace(completion_tokens=1, cached_prompt_tokens=0),
    )
    answer = Answer(wanted, [generation], Words(hermes.tokenizer), ABOUT)  # type: ignore[list-item]  # all it looks at
    token = SampledToken(0, 5)
    begun = Piece("", token, None, calls=(CallPart(0, "c", "f", '{"a": '),))
    pieces = [
        begun,
        Piece("Done.", token, None, calls=(CallPart(0, arguments="1}"),)),
        Piece("", token, Finish(FinishReason.TOOL_CALLS)),
    ]
    teller = dialect.teller(wanted, ABOUT)
    told = "".join(map(teller.chunk, answer.chunks(0, [(0, piece) for piece in pieces])))
    deltas = [value for value in objects(told) if value["type"].endswith("delta")]
    texts = [value["delta"] for value in deltas]
    joined = [t if isinstance(t, str) else t.get("text") or t["partial_json"] for t in texts]
    assert joined == ['{"a": ', "1}", "Done."]
