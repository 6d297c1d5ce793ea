"""Chats asked for in other forms: Anthropic's messages and OpenAI's responses."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from cluster.engine.served_model import ServedModel
from cluster.gateway.openai.dialects.responses import RESPONSES
from cluster.settings.tokens import Scope, TokenFile, append, new_token
from tests.checkpoints import tiny, write
from tests.engines import engine_bounds
from tests.fakes import FakeHead
from tests.openai_door import HELLO, Answered, ask, chat, saying
from tests.serving import Serving
from tests.text_folders import END, HERMES, START, text_folder

ServeFake = Callable[..., Serving]
PLACE = {"type": "object", "properties": {"place": {"enum": ["Ulm", "Rom"]}}, "required": ["place"]}
TAGGED = '<tool_call>\n{"name": "weather", "arguments": {"place": "Ulm"}}\n</tool_call>'
MESSAGES, RESPONSES_PATH = "/v1/messages", "/v1/responses"


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tmp_path_factory.mktemp("hermes")
    text_folder(folder, added={END: 32000, START: 32001}, template=HERMES, eos_token=END)
    write(folder, tiny(vocab_size=32002, eos_token_id=32000, max_position_embeddings=2048))
    return ServedModel.open(str(folder))


@pytest.fixture
def looking(hermes: ServedModel, serve_fake: ServeFake) -> Serving:
    """A model that says something, and calls a tool."""
    return serve_fake(saying(hermes, "I look. ", TAGGED), hermes)


def said(server: Serving, **fields: Any) -> Answered:
    return ask(server, MESSAGES, {"messages": HELLO, "max_tokens": 200} | fields)


def responded(server: Serving, **fields: Any) -> Answered:
    return ask(server, RESPONSES_PATH, {"input": "hello", "max_output_tokens": 200} | fields)


def named_events(answered: Answered) -> list[Any]:
    """The objects of a stream whose events have names, which are their types."""
    assert answered.headers["content-type"].startswith("text/event-stream")
    found = []
    for text in answered.raw.decode("ascii").split("\n\n")[:-1]:
        name, value = re.fullmatch("event: (.*)\ndata: (.*)", text).groups()  # type: ignore[union-attr]
        found.append(json.loads(value))
        assert found[-1]["type"] == name
    return found


class TestMessages:
    """F27."""

    tools: Any = [{"name": "weather", "description": "Sky.", "input_schema": PLACE}]  # noqa: RUF012

    def test_a_text_is_that_of_a_chat(self, looking: Serving) -> None:
        plain = chat(looking, max_tokens=4).json
        answer = said(looking, max_tokens=4).json
        assert answer["content"] == [{"type": "text", "text": plain["choices"][0]["message"]["content"]}]
        assert (answer["type"], answer["role"], answer["stop_reason"]) == ("message", "assistant", "max_tokens")
        counts = answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"]
        assert (counts, answer["usage"]["output_tokens"]) == (plain["usage"]["prompt_tokens"], 4)
        counted = ask(looking, f"{MESSAGES}/count_tokens?beta=true", {"messages": HELLO}).json
        assert counted == {"input_tokens": counts}

    def test_blocks_become_a_conversation(self, looking: Serving) -> None:
        """What tools answered stands before what the user says beside it; thoughts are left out."""
        call = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"place": "Ulm"}}
        result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "sunny"}]}
        thought = {"type": "thinking", "thinking": "hm", "signature": "x"}
        turns = [*HELLO, {"role": "assistant", "content": [thought, {"type": "text", "text": "I look."}, call]}]
        turns.append({"role": "user", "content": [{"type": "text", "text": "And?"}, result]})
        system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
        body = {"messages": turns, "system": system, "tools": self.tools}
        counted = ask(looking, f"{MESSAGES}/count_tokens", body).json["input_tokens"]
        function = {"name": "weather", "arguments": '{"place": "Ulm"}'}
        told: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, *HELLO]
        calls = [{"id": "c1", "type": "function", "function": function}]
        told += [{"role": "assistant", "content": "I look.", "tool_calls": calls}]
        told += [{"role": "tool", "tool_call_id": "c1", "content": "sunny"}, {"role": "user", "content": "And?"}]
        weather = {"type": "function", "function": {"name": "weather", "description": "Sky.", "parameters": PLACE}}
        assert ask(looking, "/tokenize", {"messages": told, "tools": [weather]}).json["count"] == counted

    def test_a_call_is_told_whole_and_in_parts(self, looking: Serving) -> None:
        answer = said(looking, tools=self.tools).json
        text, call = answer["content"]
        assert (text["text"].strip(), answer["stop_reason"]) == ("I look.", "tool_use")
        assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"place": "Ulm"})
        events = named_events(said(looking, tools=self.tools, stream=True))
        kinds = [event["type"] for event in events]
        assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
        blocks = [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]
        assert (blocks, kinds.count("content_block_stop")) == (["text", "tool_use"], 2)
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
        assert "".join(delta.get("text", "") for delta in deltas).strip() == "I look."
        assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == {"place": "Ulm"}
        assert events[-2]["delta"]["stop_reason"] == "tool_use"
        assert events[-2]["usage"]["output_tokens"] == answer["usage"]["output_tokens"]
        places = [event["index"] for event in events if event["type"].startswith("content_block")]
        assert places == sorted(places)

    def test_what_stopped_it_is_told(self, hermes: ServedModel, serve_fake: ServeFake) -> None:
        server = serve_fake(saying(hermes, "north south"), hermes)
        answer = said(server, stop_sequences=["sou"]).json
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "sou")
        assert said(server).json["stop_reason"] == "end_turn"
        (choice,) = chat(server, stop=["sou"], ignore_eos=False, max_tokens=200).json["choices"]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "sou"), "a chat tells it as vLLM does"

    def test_failures_are_anthropics(self, chatting: Serving) -> None:
        odd: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": [{"type": "image"}]}]}, {"messages": 3}]
        odd += [{"max_tokens": 1 << 20}, {"temperature": "hot"}, {"messages": []}, {"tools": [{"name": "f"}]}]
        for fields in odd:
            answered = said(chatting, **fields)
            assert (answered.status, answered.json["type"]) == (400, "error"), fields
            assert answered.json["error"]["type"] == "invalid_request_error"
        assert said(chatting, model="other").json["error"]["type"] == "not_found_error"

    def test_a_failure_in_a_stream_ends_it(self, instruct: ServedModel, serve_fake: ServeFake) -> None:
        head = FakeHead()
        server = serve_fake(head, instruct)
        for ask_for in (said, responded):
            head.outcomes.append("numeric")
            assert named_events(ask_for(server, stream=True))[-1]["type"] == "error"
        assert chat(server).status == 200

    def test_a_token_may_stand_in_a_header_of_its_own(self, instruct: ServedModel, tmp_path: Any) -> None:
        token, line = new_token("claude", [Scope.INFERENCE])
        append(tmp_path / "tokens", line)
        server = Serving(instruct, tokens=TokenFile(tmp_path / "tokens")).ready(FakeHead(), engine_bounds())
        try:
            body = {"messages": HELLO, "max_tokens": 1}
            assert ask(server, MESSAGES, body, headers={"x-api-key": token}).status == 200
            refused = ask(server, MESSAGES, body, headers={"x-api-key": "other"})
            assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
        finally:
            server.close()


class TestResponses:
    """F28."""

    tools: Any = [{"type": "function", "name": "weather", "parameters": PLACE}, {"type": "web_search"}]  # noqa: RUF012

    def test_a_text_is_that_of_a_chat(self, looking: Serving) -> None:
        plain = chat(looking, max_tokens=4).json
        answer = responded(looking, max_output_tokens=4).json
        (message,) = answer["output"]
        assert message["content"][0]["text"] == plain["choices"][0]["message"]["content"]
        assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
        assert answer["usage"]["total_tokens"] == plain["usage"]["total_tokens"]

    def test_a_call_is_told_whole_and_in_parts(self, looking: Serving) -> None:
        answer = responded(looking, tools=self.tools).json
        message, call = answer["output"]
        assert (message["content"][0]["text"].strip(), answer["status"]) == ("I look.", "completed")
        assert (call["type"], call["name"], json.loads(call["arguments"])) == (
            "function_call",
            "weather",
            {"place": "Ulm"},
        )
        events = named_events(responded(looking, tools=self.tools, stream=True))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        kinds = [event["type"] for event in events]
        assert (kinds[:2], kinds[-1]) == (["response.created", "response.in_progress"], "response.completed")
        assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
        last = events[-1]["response"]
        assert [item["type"] for item in last["output"]] == ["message", "function_call"]
        deltas = {
            kind: "".join(e["delta"] for e in events if e["type"].endswith(kind))
            for kind in ("text.delta", "arguments.delta")
        }
        assert deltas == {"text.delta": last["output"][0]["content"][0]["text"], "arguments.delta": call["arguments"]}
        assert last["usage"]["output_tokens"] == answer["usage"]["output_tokens"]

    def test_a_stream_that_fails_on_its_way_says_so_in_its_response(self) -> None:
        teller = RESPONSES.teller(RESPONSES.read({"input": "a", "stream": True}, "r"))
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        about = {"id": "chatcmpl-r", "created": 7, "model": "m", "usage": usage | {"prompt_tokens_details": {}}}
        choice = {"delta": {"content": "north"}, "finish_reason": None}
        assert "north" in teller.chunk(about | {"choices": [choice]})
        error = {"message": "lost", "type": "server_error", "param": None, "code": "numeric_fault"}
        _, _, told = teller.failed({"error": error}).partition("data: ")
        failed = json.loads(told)
        assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
        assert failed["response"]["error"] == error and failed["response"]["output"][0]["content"][0]["text"] == "north"
        assert teller.end() == ""

    def test_items_become_a_conversation(self) -> None:
        items: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "input_text", "text": "Rain?"}]}]
        items += [{"type": "reasoning", "summary": []}, {"type": "nosuch"}]
        items += [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}]
        for i in "12":
            items += [{"type": "function_call", "call_id": f"c{i}", "name": "weather", "arguments": "{}"}]
        items += [{"type": "function_call_output", "call_id": "c1", "output": "no"}]
        wanted = RESPONSES.read({"instructions": "Be brief.", "input": items, "tools": self.tools}, "r")
        chat = wanted.requests[0].prompt.chat
        assert [message.content for message in chat.messages] == ["Be brief.", "Rain?", "I look.", "no"]
        assert [call.id for call in chat.messages[2].tool_calls] == ["c1", "c2"]
        assert [tool.name for tool in chat.tools] == ["weather"], "kinds that cannot be called are skipped"

    def test_an_answer_keeps_to_a_schema(self) -> None:
        form = {"type": "json_schema", "name": "x", "schema": PLACE, "strict": True}
        wanted = RESPONSES.read({"input": "a", "text": {"format": form}}, "r")
        assert json.loads(wanted.requests[0].constraint.json_schema) == PLACE

    @pytest.mark.parametrize("given", ["", [], None])
    def test_a_look_whether_somebody_is_there_is_answered(self, given: Any, chatting: Serving) -> None:
        assert responded(chatting, input=given, max_output_tokens=1).status == 200

    def test_what_would_need_a_memory_is_refused(self, chatting: Serving) -> None:
        answered = responded(chatting, previous_response_id="resp_1")
        assert (answered.status, answered.error["param"]) == (400, "previous_response_id")
