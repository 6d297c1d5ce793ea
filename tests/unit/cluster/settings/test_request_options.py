"""The table of request options against what it must agree with."""

import math
from dataclasses import fields

import pytest

from cluster.settings.request_options import REQUEST_OPTIONS, SAMPLING_RANGES, Options
from model.batch import SamplingParams
from protos.eightwinds.v1 import inference_pb2 as pb


def test_each_field_has_its_row() -> None:
    assert list(REQUEST_OPTIONS) == [field.name for field in fields(Options)]


def test_sampling_options_are_the_fields_of_the_proto_but_the_bias() -> None:
    offered = {name for name, option in REQUEST_OPTIONS.items() if option.message == "sampling"}
    assert offered == {field.name for field in pb.Sampling.DESCRIPTOR.fields} - {"logit_bias"}


@pytest.mark.parametrize(("name", "good", "text"), SAMPLING_RANGES, ids=[name for name, *_ in SAMPLING_RANGES])
def test_a_range_is_of_a_sampling_parameter_and_holds_its_default(name: str, good: object, text: str) -> None:
    assert callable(good) and good(getattr(SamplingParams(), name))
    assert not good(-3) and not good(math.nan) and text.startswith("must be ")
