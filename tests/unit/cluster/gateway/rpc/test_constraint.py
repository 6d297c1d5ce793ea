"""Outputs that a JSON schema or a regular expression holds to, from gateway to sampler, beside others that are free."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from grpc import StatusCode

from protos.eightwinds.v1 import inference_pb2 as pb
from tests.serving import Serving, failure

SCHEMA = {
    "type": "object",
    "properties": {"wind": {"enum": ["north", "east"]}, "speed": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["wind", "speed"],
    "additionalProperties": False,
}
PATTERN = "(ha){2,5}!?"


def request(seed: int, constraint: pb.Constraint | None, **stopping: int | bool) -> pb.GenerateRequest:
    wanted = pb.GenerateRequest(
        prompt=pb.Prompt(text="The wind"),
        sampling=pb.Sampling(temperature=1.5, seed=seed),
        stopping=pb.Stopping(**({"max_tokens": 60} | stopping)),  # type: ignore[arg-type]  # by field name
        n=2,
    )
    if constraint is not None:
        wanted.constraint.CopyFrom(constraint)
    return wanted


def test_every_output_is_of_the_form_whatever_its_batch_mates_are(serving: Serving) -> None:
    forms = [pb.Constraint(json_schema=json.dumps(SCHEMA)), pb.Constraint(regex=PATTERN), None]
    wanted = [request(seed, form) for seed in range(6) for form in forms]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(serving.client.generate, wanted))
    seen = set()
    for asked, answer in zip(wanted, answers, strict=True):
        for output in answer.outputs:
            match asked.constraint.WhichOneof("constraint"):
                case "json_schema":
                    value = json.loads(output.text)
                    assert value.keys() == {"wind", "speed"} and value["wind"] in ("north", "east")
                    assert 0 <= value["speed"] <= 99
                    assert output.finish.reason == pb.FINISH_REASON_STOP
                    seen.add(output.text)
                case "regex":
                    assert re.fullmatch(PATTERN, output.text), output.text
    assert len(seen) > 4, "the schema leaves a choice, and the temperature makes it"
    free = [answer for asked, answer in zip(wanted, answers, strict=True) if not asked.HasField("constraint")]
    alone = [serving.client.generate(request(seed, None)) for seed in range(6)]
    assert [[o.text for o in a.outputs] for a in free] == [[o.text for o in a.outputs] for a in alone]


def test_a_stream_holds_to_the_form_too(serving: Serving) -> None:
    texts = {0: "", 1: ""}
    for message in serving.client.stream(request(3, pb.Constraint(regex=PATTERN))):
        texts[message.index] += message.text
    assert all(re.fullmatch(PATTERN, text) for text in texts.values()), texts


def test_max_tokens_may_cut_a_form_short(serving: Serving) -> None:
    answer = serving.client.generate(request(1, pb.Constraint(json_schema=json.dumps(SCHEMA)), max_tokens=3))
    assert {o.finish.reason for o in answer.outputs} == {pb.FINISH_REASON_LENGTH}


@pytest.mark.parametrize(
    ("constraint", "field"),
    [
        (pb.Constraint(json_schema="{"), "constraint.json_schema"),
        (pb.Constraint(regex="("), "constraint.regex"),
        (pb.Constraint(), "constraint"),
    ],
)
def test_a_form_that_means_nothing_is_refused(constraint: pb.Constraint, field: str, serving: Serving) -> None:
    told = failure(lambda: serving.client.generate(request(1, constraint)))
    assert (told.code, told.fields) == (StatusCode.INVALID_ARGUMENT, [field])
