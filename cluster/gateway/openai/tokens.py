"""Tokens and texts, as vLLM's endpoints have them: evaluation harnesses use a server as their tokenizer."""

from collections.abc import Sequence
from typing import Any

from cluster.engine.served_model import ServedModel
from cluster.gateway.errors import Violations, check_model
from cluster.gateway.examination.examiner import Examiner
from cluster.gateway.openai.body import Body, parsed
from cluster.gateway.openai.dialects.messages import chat_of
from cluster.gateway.openai.logprobs import Words
from cluster.gateway.openai.rendering import rendered
from cluster.gateway.openai.requests import conversation
from cluster.gateway.openai.tools import write_tools
from protos.eightwinds.v1 import inference_pb2 as pb


def tokenized(examiner: Examiner, raw: bytes, most: int, names: Sequence[str], context: int) -> str:
    """Of a body's `prompt` or `messages`; ApiError if it has neither. `most` as in `parsed`; `names` of the model."""
    body, served = Body(parsed(raw, most), Violations()), examiner.served
    check_model(body.text("model"), names)
    request, chat = pb.TokenizeRequest(), "messages" in body
    if chat:
        conversation(body, request.prompt.chat)
        write_tools(body, request.prompt.chat)
    elif "prompt" in body:
        request.prompt.text, request.prompt.special_tokens = body.text("prompt"), True
        request.prompt.no_bos = not body.flag("add_special_tokens", True)
    else:
        body.refuse("prompt", "must be a string; or send messages")
    strings = body.flag("return_token_strs")
    body.found.raise_any()
    answer = examiner.tokenize(request, context)
    ids = list(answer.token_ids)
    words = Words(served.tokenizer)
    found = {"count": len(ids), "max_model_len": answer.context_length, "tokens": ids}
    return rendered(found | {"token_strs": [words.text(i) for i in ids] if strings else None})


def counted(examiner: Examiner, raw: bytes, most: int, names: Sequence[str], context: int) -> str:
    """How many tokens a body of Anthropic's messages has."""
    given, request = Body(parsed(raw, most), Violations()), pb.TokenizeRequest()
    check_model(given.text("model"), names)
    body = Body(chat_of(given), given.found)
    given.found.raise_any()
    conversation(body, request.prompt.chat)
    write_tools(body, request.prompt.chat)
    body.found.raise_any()
    return rendered({"input_tokens": len(examiner.tokenize(request, context).token_ids)})


def detokenized(examiner: Examiner, raw: bytes, most: int, names: Sequence[str]) -> str:
    body = Body(parsed(raw, most), Violations())
    check_model(body.text("model"), names)
    request = pb.DetokenizeRequest(token_ids=body.integers("tokens"), special_tokens=True)
    body.found.raise_any()
    return rendered({"prompt": examiner.detokenize(request).text})


def tokenizer_info(served: ServedModel) -> dict[str, Any]:
    words = Words(served.tokenizer)
    names = {"bos_token": served.tokenizer.bos_id, "eos_token": served.tokenizer.eos_id}
    names |= {"unk_token": served.tokenizer.unk_id}
    found: dict[str, Any] = {name: words.text(i) if i >= 0 else None for name, i in names.items()}
    form = served.chat_format
    template = None if isinstance(form, str) else form.source or None
    return found | {"pad_token": None, "chat_template": template, "tokenizer_class": "LlamaTokenizer"}
