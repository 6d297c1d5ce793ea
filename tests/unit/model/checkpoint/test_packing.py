"""`quantization_config`: what of it can be served, and what is refused, with which words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint.folder import Checkpoint
from model.checkpoint.packing import Packing
from tests.checkpoints import tiny, write

AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm", "zero_point": True}
GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}

SERVED: dict[str, tuple[dict[str, Any], Packing]] = {
    "AWQ": (AWQ, Packing("awq", 64)),
    "AWQ, as AutoAWQ wrote it once": (AWQ | {"version": "GEMM"}, Packing("awq", 64)),
    "AWQ, least": ({"quant_method": "awq"}, Packing("awq", 128)),
    "GPTQ": (GPTQ, Packing("gptq", 128, below=1)),
    "GPTQ, named": (GPTQ | {"checkpoint_format": "gptq"}, Packing("gptq", 128, below=1)),
    "GPTQ v2": (GPTQ | {"checkpoint_format": "gptq_v2", "sym": False}, Packing("gptq", 128)),
    "GPTQ, one group, in an order": (GPTQ | {"group_size": -1, "desc_act": True}, Packing("gptq", 0, below=1)),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_can_be_served_is_understood(name: str) -> None:
    raw, packing = SERVED[name]
    assert Packing.of({"quantization_config": raw}) == packing


def test_without_quantization_there_is_none() -> None:
    assert Packing.of({}) is None and Packing.of({"quantization_config": None}) is None


REFUSED: dict[str, tuple[object, str]] = {
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quant_method is 'bitsandbytes'"),
    "fp8": ({"quant_method": "fp8", "activation_scheme": "static"}, "quant_method is 'fp8'"),
    "compressed-tensors": ({"quant_method": "compressed-tensors"}, "quant_method is 'compressed-tensors'"),
    "no method": ({"bits": 4}, "quant_method is None"),
    "method a list": (AWQ | {"quant_method": ["awq"]}, "quant_method is ['awq']"),
    "8 bits": (GPTQ | {"bits": 8}, "quantization_config.bits is 8"),
    "3 bits": (GPTQ | {"bits": 3}, "quantization_config.bits is 3"),
    "AWQ gemv": (AWQ | {"version": "gemv"}, "quantization_config.version is 'gemv'"),
    "AWQ gemv_fast": (AWQ | {"version": "gemv_fast"}, "quantization_config.version is 'gemv_fast'"),
    "AWQ without zeros": (AWQ | {"zero_point": False}, "quantization_config.zero_point is False"),
    "Marlin": (GPTQ | {"checkpoint_format": "marlin"}, "quantization_config.checkpoint_format is 'marlin'"),
    "Marlin, as it was once": (GPTQ | {"is_marlin_format": True}, "quantization_config.is_marlin_format is True"),
    "group of none": (AWQ | {"group_size": 0}, "quantization_config.group_size is 0, but must be -1 or at least 1"),
    "group a word": (AWQ | {"group_size": "64"}, "quantization_config.group_size is '64'"),
    "a list": ([4], "quantization_config is [4], but must be an object or null"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_file_and_key(name: str, tmp_path: Path) -> None:
    raw, says = REFUSED[name]
    folder = write(tmp_path, tiny())
    (folder / "config.json").write_text(json.dumps(tiny(quantization_config=raw)))
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        Checkpoint.open(folder)
    said = str(raised.value)
    assert said.startswith(f"{folder / 'config.json'}: ")
    assert "must be" in said or "use a folder of 4 bits by AWQ (version gemm) or GPTQ" in said
