"""How fast a machine computes an expert's calls."""

import pytest
import torch

from model.config import MixtralConfig
from model.experts.speed import calls_per_second
from tests.checkpoints import tiny


@pytest.mark.parametrize("form", ["none", "int8", "int4"])
def test_calls_are_counted_in_every_form(form: str) -> None:
    config = MixtralConfig.from_hf(tiny(hidden_size=64, intermediate_size=128))
    before = torch.get_num_threads()
    small = calls_per_second(config, form, torch.bfloat16, 1, seconds=0.02)
    large = calls_per_second(
        MixtralConfig.from_hf(tiny(hidden_size=1024, intermediate_size=3584)), form, torch.bfloat16, 1, seconds=0.02
    )
    assert small > 2 * large > 0, "an expert of 900 times the size takes longer"
    assert torch.get_num_threads() == before
