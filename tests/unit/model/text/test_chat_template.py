"""Which folders ask for another chat than the one that is rendered."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.text.chat_template import chat_refusal

MIXTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + "
    "' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
CHATML = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}{% endfor %}"
LLAMA = "{{ '[INST] <<SYS>>' + system + '<</SYS>>' + message['content'] + ' [/INST]' }}"
TOOLS = "{{ '[AVAILABLE_TOOLS] ' + tools + '[/AVAILABLE_TOOLS][INST] ' + message['content'] + ' [/INST]' }}"


def refusal(folder: Path, **files: Any) -> str:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return chat_refusal(folder, 32000)


def test_a_folder_that_says_nothing_or_mixtrals_own_is_not_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == ""
    control = {str(i): {"content": name} for i, name in enumerate(["<unk>", "<s>", "</s>"])}
    own = {"chat_template": MIXTRAL, "added_tokens_decoder": control}
    assert refusal(tmp_path, tokenizer_config=own, added_tokens={"</s>": 2}) == ""
    named = [{"name": "default", "template": MIXTRAL}, {"name": "tool_use", "template": TOOLS}]
    assert refusal(tmp_path, tokenizer_config={"chat_template": named}) == ""


@pytest.mark.parametrize("template", [CHATML, LLAMA, TOOLS, "{{ messages }}"])
def test_another_template_is_refused(template: str, tmp_path: Path) -> None:
    assert "another chat template" in refusal(tmp_path, tokenizer_config={"chat_template": template})
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "chat_template.jinja").write_text(template)
    assert "another chat template" in refusal(tmp_path)


@pytest.mark.parametrize(
    "files",
    [
        {"added_tokens": {"<|im_start|>": 32001, "<|im_end|>": 32000}},
        {"tokenizer_config": {"added_tokens_decoder": {"32000": {"content": "<|im_end|>"}, "2": {"content": "</s>"}}}},
    ],
)
def test_added_tokens_are_refused_and_named(files: dict[str, Any], tmp_path: Path) -> None:
    assert "<|im_end|>" in refusal(tmp_path, **files)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not valid JSON"):
        chat_refusal(tmp_path, 32000)
