"""Tokens and texts, as vLLM's endpoints have them: evaluation harnesses use a server as their tokenizer."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from cluster.engine.served_model import ServedModel
from cluster.gateway.auth import Caller
from cluster.gateway.errors import Violations
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.intake import Intake
from cluster.gateway.openai.body import Body
from cluster.gateway.openai.logprobs import Words
from cluster.gateway.openai.requests import conversation
from protos.eightwinds.v1 import inference_pb2 as pb


async def tokenized(intake: Intake, values: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Of a `prompt`, or of `messages`; ApiError if it has neither."""
    body, tokenizer = Body(values, Violations()), intake.served.tokenizer
    request = pb.TokenizeRequest(model=body.text("model"))
    chat = "messages" in body
    if chat:
        conversation(body, request.prompt.chat)
    elif "prompt" in body:
        request.prompt.text = body.text("prompt")
    else:
        body.refuse("prompt", "must be a string; or send messages")
    special, strings = body.flag("add_special_tokens", not chat), body.flag("return_token_strs")
    body.found.raise_any()
    work = partial(Examiner.tokenize, request=request, context_length=intake.context)
    answer = await intake.examined(request, caller, work)
    ids = list(answer.token_ids)
    if not chat and not special:
        ids = ids[1:] if ids[:1] == [tokenizer.bos_id] else ids
    words = Words(tokenizer)
    # A harness asks by their names what begins and ends a text; within a text such a name stays text.
    controls = {words.text(i): i for i in (tokenizer.bos_id, tokenizer.eos_id)}
    if not chat and (control := controls.get(request.prompt.text)) is not None:
        ids = [tokenizer.bos_id, control] if special else [control]
    found = {"count": len(ids), "max_model_len": answer.context_length, "tokens": ids}
    return found | {"token_strs": [words.text(i) for i in ids] if strings else None}


async def detokenized(intake: Intake, values: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    body = Body(values, Violations())
    request = pb.DetokenizeRequest(model=body.text("model"), token_ids=body.integers("tokens"), special_tokens=True)
    body.found.raise_any()
    answer = await intake.examined(request, caller, partial(Examiner.detokenize, request=request))
    return {"prompt": answer.text}


def tokenizer_info(served: ServedModel) -> dict[str, Any]:
    words = Words(served.tokenizer)
    names = {"bos_token": served.tokenizer.bos_id, "eos_token": served.tokenizer.eos_id}
    names |= {"unk_token": served.tokenizer.unk_id}
    found: dict[str, Any] = {name: words.text(token_id) for name, token_id in names.items()}
    return found | {"pad_token": None, "chat_template": None, "tokenizer_class": "LlamaTokenizer"}
