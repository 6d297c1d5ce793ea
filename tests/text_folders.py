"""Folders with the text files of Mixtral's family, as tunes have them."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from cluster.engine.served_model import ServedModel
from model.chat.formats import chat_format
from model.text.tokenizer import Tokenizer

VOCABULARIES = Path(str(files("mistral_common"))) / "data"
V1 = VOCABULARIES / "tokenizer.model.v1"
V3 = VOCABULARIES / "mistral_instruct_tokenizer_240323.model.v3"

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MIXTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
HERMES = """{%- if tools %}
{{- '<|im_start|>system\\nYou may call functions: <tools>' }}
{%- for tool in tools %}{{- tool | tojson }}{% if not loop.last %}{{- '\\n' }}{% endif %}{% endfor %}
{{- '</tools> For each call return JSON within <tool_call></tool_call>.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>tool\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif message.role == 'assistant' and message.tool_calls is defined %}
{{- '<|im_start|>assistant\\n' }}
{%- for call in message.tool_calls %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

START, END = "<|im_start|>", "<|im_end|>"


def entry(text: str, **flags: bool) -> dict[str, Any]:
    """A token as `added_tokens_decoder` has it."""
    usual = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {"content": text} | usual | flags


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def text_folder(
    folder: Path, added: dict[str, int] | None = None, template: str | None = CHATML, model: Path = V1, **settings: Any
) -> Path:
    """A folder with `tokenizer.model`, `tokenizer_config.json` and, with `added` tokens, `added_tokens.json`. Names of
    `flags` in the settings are of the added tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(model, folder / "tokenizer.model")
    flags = settings.pop("flags", {})
    decoder = {i: entry(name) for i, name in enumerate(["<unk>", "<s>", "</s>"])}
    decoder |= {i: entry(text, **flags.get(text, {})) for text, i in (added or {}).items()}
    about: dict[str, Any] = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    about |= {"unk_token": "<unk>", "added_tokens_decoder": {str(i): e for i, e in decoder.items()}}
    about |= {"chat_template": template} if template else {}
    write(folder, "tokenizer_config.json", about | settings)
    if added:
        write(folder, "added_tokens.json", added)
    write(folder, "config.json", {"model_type": "mixtral"})
    return folder


def with_vocabulary(served: ServedModel, vocabulary: Path) -> ServedModel:
    """A model with another vocabulary, and the chat that comes with it: of a folder, or of one of Mistral's files."""
    tokenizer = Tokenizer.load(vocabulary)
    folder = vocabulary if vocabulary.is_dir() else vocabulary.parent
    return replace(served, tokenizer=tokenizer, chat_format=chat_format(folder, tokenizer, attempt=lambda source: ""))
