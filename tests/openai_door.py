"""An HTTP client for tests of the OpenAI-compatible door, which shows what came byte for byte."""

import http.client
import json
from typing import Any

from cluster.engine.served_model import ServedModel
from model.batch import NewSequence
from tests.fakes import PATIENCE, FakeHead
from tests.serving import Serving

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "user", "content": "hello"}]


class Answered:
    """A status, headers, and a body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.raw = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        """The one object of every failure."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return dict(self.json["error"])

    @property
    def events(self) -> list[Any]:
        """The objects of a stream, which ends as clients want it."""
        assert self.headers["content-type"].startswith("text/event-stream")
        *lines, done, nothing = self.raw.decode("ascii").split("\n\n")
        assert (done, nothing) == ("data: [DONE]", "")
        return [json.loads(line.removeprefix("data: ")) for line in lines if not line.startswith(":")]


def ask(
    server: Serving, path: str, body: object = None, method: str = "", headers: dict[str, str] | None = None
) -> Answered:
    connection = http.client.HTTPConnection(server.http, timeout=PATIENCE)
    raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body)
    connection.request(method or ("GET" if body is None else "POST"), path, raw, headers or {})
    answered = Answered(connection.getresponse())
    connection.close()
    return answered


def chat(server: Serving, **fields: Any) -> Answered:
    return ask(server, CHAT, {"messages": HELLO, "max_tokens": 4, "ignore_eos": True, "seed": 7} | fields)


def complete(server: Serving, **fields: Any) -> Answered:
    return ask(server, COMPLETIONS, {"prompt": "My favourite", "max_tokens": 4, "temperature": 0} | fields)


def saying(served: ServedModel, *parts: str | int) -> FakeHead:
    """A head whose outputs are these texts and ids, then an end."""
    ids = [i for part in parts for i in ([part] if isinstance(part, int) else served.tokenizer.encode(part, bos=False))]

    def sample(new: NewSequence, token_ids: list[int]) -> int:
        place = len(token_ids) - new.prompt_length
        return ids[place] if place < len(ids) else served.eos_ids[-1]

    return FakeHead(page_count=1024, sample=sample)
