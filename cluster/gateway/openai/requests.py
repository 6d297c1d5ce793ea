"""OpenAI's requests as the gateway's own, one for each prompt, and the form of their answer.

Fields with OpenAI's names mean what OpenAI says; others are vLLM's (`top_k`, `ignore_eos`). Fields
that mean nothing to an engine of one model (`store`, `service_tier`, `metadata`) are ignored, as unknown ones are.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cluster.gateway.conversations import MOST_MESSAGES
from cluster.gateway.errors import Violations
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.openai.body import Body, is_integers, is_number, parsed
from cluster.gateway.openai.tools import write_tools
from cluster.gateway.validation import MAX_LOGPROBS, MAX_NAME
from protos.eightwinds.v1 import inference_pb2 as pb

_COMPLETION_TOKENS = 16  # OpenAI's default, of completions only
_MOST_OUTPUTS = 128
_MOST_SHARED_BYTES = 4 << 20  # copies of what the prompts of a request share
_ROLES = {"system": pb.ROLE_SYSTEM, "developer": pb.ROLE_SYSTEM, "user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
_ROLES |= {"tool": pb.ROLE_TOOL, "function": pb.ROLE_TOOL}
# Tools may be left unread, where they are not to be called.
_IGNORED = {
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "metadata",
    "store",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
}
_IGNORED |= {"safety_identifier", "verbosity", "reasoning_effort"}
MOST_UNKNOWN = 10  # names of unknown fields that are told
_ANY_OBJECT = '{"type": "object"}'


@dataclass(frozen=True, slots=True)
class Wanted:
    """`requests` has an entry for each prompt, each with `n` choices. `model` is the name that the client used. With
    `echo` a choice begins with its prompt. `usage` and `running_usage` are of streams: at the end, in every chunk.
    With `prompt_scores` >= 0 the answer has the prompt's log-probabilities, and so many alternatives of each token.
    `unknown` are names of fields that were ignored, some of them. `told` are fields that an answer
    in another dialect repeats.
    """

    chat: bool
    requests: tuple[pb.GenerateRequest, ...]
    n: int
    model: str
    stream: bool
    echo: bool = False
    usage: bool = False
    running_usage: bool = False
    prompt_scores: int = -1
    unknown: tuple[str, ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict)

    @property
    def logprobs(self) -> bool:
        return self.requests[0].output.HasField("logprobs")


Read = Callable[[Mapping[str, Any], str], Wanted]


def wanted_of(examiner: Examiner, raw: bytes, most: int, read: Read, request_id: str) -> Wanted:
    """Of a body's bytes, by an examiner, because long ones take some time; `most` as in `parsed`."""
    return read(parsed(raw, most), request_id)


def chat_wanted(values: Mapping[str, Any], request_id: str) -> Wanted:
    """Of a body of `/v1/chat/completions`; raises ApiError with all of its violations."""
    found = Violations()
    body = Body(values, found)
    request = _request(body, request_id)
    conversation(body, request.prompt.chat)
    newer, older = body.integer("max_completion_tokens"), body.integer("max_tokens")
    if newer is not None or older is not None:
        request.stopping.max_tokens = newer if newer is not None else older or 0
    top = body.integer("top_logprobs")
    if body.flag("logprobs"):
        request.output.logprobs = top or 0
    elif top:
        body.refuse("top_logprobs", "needs logprobs: true")
    write_tools(body, request.prompt.chat)
    return _wanted(body, [request], chat=True)


def completion_wanted(values: Mapping[str, Any], request_id: str) -> Wanted:
    """Of a body of `/v1/completions`; raises ApiError with all of its violations."""
    found = Violations()
    body = Body(values, found)
    shared = _request(body, request_id)
    asked = body.integer("max_tokens")
    shared.stopping.max_tokens = _COMPLETION_TOKENS if asked is None else asked
    alternatives, echo = body.integer("logprobs"), body.flag("echo")
    if alternatives is not None and not 0 <= alternatives <= MAX_LOGPROBS:
        body.refuse("logprobs", f"must be 0 to {MAX_LOGPROBS}")
    elif alternatives is not None:
        shared.output.logprobs = alternatives
        if echo:
            shared.output.prompt_logprobs = max(alternatives, shared.output.prompt_logprobs)
    no_bos, literal = not body.flag("add_special_tokens", True), body.flag("eightwinds_literal")
    if body.text("suffix"):
        body.refuse("suffix", "is not offered: the model has no tokens for filling in")
    best_of = body.integer("best_of")
    if best_of is not None and best_of != (shared.n or 1):
        body.refuse("best_of", "must equal n, or be left out")
    requests, prompts = [], _prompts(body)
    if len(prompts) * (shared.n or 1) > _MOST_OUTPUTS:
        body.refuse("prompt", f"makes more than {_MOST_OUTPUTS} outputs, with n of each prompt")
        prompts = prompts[:1]
    elif len(prompts) * shared.ByteSize() > _MOST_SHARED_BYTES:
        body.refuse("prompt", "has too many prompts for so long a schema, logit_bias or stop: send fewer at once")
        prompts = prompts[:1]
    for prompt in prompts:
        requests.append(request := pb.GenerateRequest())
        request.CopyFrom(shared)
        request.prompt.CopyFrom(prompt)
        request.prompt.no_bos, request.prompt.special_tokens = no_bos, not literal
    return _wanted(body, requests, chat=False, echo=echo)


def _wanted(body: Body, requests: list[pb.GenerateRequest], chat: bool, echo: bool = False) -> Wanted:
    stream, options = body.flag("stream"), body.object("stream_options")
    usage = options is not None and options.flag("include_usage")
    running = options is not None and options.flag("continuous_usage_stats")
    body.found.raise_any()
    n, model = requests[0].n or 1, body.text("model")
    asked, scores = body.integer("prompt_logprobs"), -1
    if asked is not None and not stream:
        scores = asked
    unknown = sorted(set(body.unread()) - _IGNORED)[:MOST_UNKNOWN]
    return Wanted(chat, tuple(requests), n, model, stream, echo, usage, running, scores, tuple(unknown))


def _request(body: Body, request_id: str) -> pb.GenerateRequest:
    """All but the prompt and how much to put out."""
    request = pb.GenerateRequest(model=body.text("model"), user=_user(body), request_id=request_id)
    sampling, stopping = request.sampling, request.stopping
    for name in ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        if (value := body.number(name)) is not None:
            setattr(sampling, name, value)
    if (top_k := body.integer("top_k")) is not None:
        sampling.top_k = max(top_k, 0)  # vLLM has -1 for all
    if (seed := body.integer("seed", -(1 << 63), (1 << 63) - 1)) is not None:
        sampling.seed = seed
    _bias(body, request)
    stopping.stop.extend(body.texts("stop"))
    stopping.stop_token_ids.extend(body.integers("stop_token_ids"))
    stopping.min_tokens = body.integer("min_tokens") or 0
    stopping.ignore_eos = body.flag("ignore_eos")
    stopping.include_stop = body.flag("include_stop_str_in_output")
    request.output.special_tokens = not body.flag("skip_special_tokens", True)
    request.priority = body.integer("priority") or 0
    if (n := body.integer("n")) is not None:
        request.n = n
    _constrain(body, request)
    _score_prompt(body, request)
    return request


def _score_prompt(body: Body, request: pb.GenerateRequest) -> None:
    asked = body.integer("prompt_logprobs")
    if asked and body.raw("stream"):
        body.refuse("prompt_logprobs", "come with a whole answer: leave stream out")
    elif asked is not None and not 0 <= asked <= MAX_LOGPROBS:
        body.refuse("prompt_logprobs", f"must be 0 to {MAX_LOGPROBS}")
    elif asked is not None:
        request.output.prompt_logprobs = asked


def _user(body: Body) -> str:
    """A user takes its own turns in the queue. One that has no good name must not fail for it, and gets a short one."""
    given = body.raw("user")
    if not isinstance(given, str):
        return ""
    return given if len(given) <= MAX_NAME else hashlib.sha256(given.encode()).hexdigest()


def _bias(body: Body, request: pb.GenerateRequest) -> None:
    given = body.object("logit_bias")
    for token, bias in (body.raw("logit_bias") or {}).items() if given else ():
        if not token.isdecimal() or len(token) > 9 or not is_number(bias):
            body.refuse("logit_bias", "must have ids of tokens as its names, and numbers as its values")
            return
        request.sampling.logit_bias[int(token)] = bias


def _constrain(body: Body, request: pb.GenerateRequest) -> None:
    """OpenAI's three kinds, and llama.cpp's `json_object` with a `schema`."""
    wanted = body.object("response_format")
    if wanted is None:
        return
    match wanted.raw("type"):
        case "text":
            return
        case "json_object":
            schema = wanted.raw("schema")
            request.constraint.json_schema = _ANY_OBJECT if schema is None else json.dumps(schema)
        case "json_schema" if (given := wanted.object("json_schema")) is not None and "schema" in given:
            request.constraint.json_schema = json.dumps(given.raw("schema"))
        case "json_schema":
            wanted.refuse("json_schema", "must have a schema")
        case _:
            wanted.refuse("type", "must be text, json_object or json_schema")


def conversation(body: Body, chat: pb.Chat) -> None:
    """Write a body's messages into `chat`."""
    messages = body.objects("messages")
    if not 0 < len(messages) <= MOST_MESSAGES:
        body.refuse("messages", f"must hold 1 to {MOST_MESSAGES} messages")
        return
    for message in messages:
        role = _ROLES.get(str(message.raw("role")))
        if role is None:
            message.refuse("role", f"must be one of {', '.join(_ROLES)}")
        said = chat.messages.add(role=role or pb.ROLE_USER, content=_content(message))
        if said.role == pb.ROLE_TOOL:
            said.tool_call_id, said.name = message.text("tool_call_id"), message.text("name")
        for call in message.objects("tool_calls") if said.role == pb.ROLE_ASSISTANT else ():
            if (function := call.object("function")) is not None:
                said.tool_calls.add(
                    id=call.text("id"), name=function.text("name"), arguments=function.text("arguments")
                )
    if body.raw("chat_template") is not None:
        body.refuse("chat_template", "is the operator's: it lies in the checkpoint's folder")
    chat.continue_final_message = body.flag("continue_final_message")
    chat.no_generation_prompt = not body.flag("add_generation_prompt", not chat.continue_final_message)
    if chat.continue_final_message and not chat.no_generation_prompt:
        body.refuse("add_generation_prompt", "must be false with continue_final_message")


def _content(message: Body) -> str:
    """A string, or the texts of parts without anything between them."""
    if not isinstance(message.raw("content"), list):
        return message.text("content")
    texts = []
    for part in message.objects("content"):
        kind = part.raw("type")
        if kind not in ("text", "refusal"):
            part.refuse("type", "must be text: the model reads nothing else")
        else:
            texts.append(part.text(kind))
    return "".join(texts)


def _prompts(body: Body) -> list[pb.Prompt]:
    """A text, ids, or a list of either; one empty prompt if it is none of these, which is noted."""
    given = body.raw("prompt")
    several = given if isinstance(given, list) and not is_integers(given) else [given]
    if given == [] or given is None:
        body.refuse("prompt", "must be a string, token ids, or a list of either")
    prompts = []
    for one in several:
        if isinstance(one, str):
            prompts.append(pb.Prompt(text=one))
        elif one and is_integers(one):
            prompts.append(pb.Prompt(token_ids=pb.TokenIds(ids=one)))
        elif given not in (None, []):
            body.refuse("prompt", "must be a string, token ids, or a list of either")
            break
    return prompts or [pb.Prompt(text="")]
