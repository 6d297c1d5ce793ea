"""Wrong requests, and what a client is told about each of them. Every case is asked of a real server."""

from dataclasses import dataclass, field
from math import inf, nan

import pytest
from grpc import StatusCode

from protos.eightwinds.v1 import inference_pb2 as pb
from tests.serving import Serving, failure

INT32 = 2**31 - 1


def generate(
    prompt: pb.Prompt | None = None,
    sampling: pb.Sampling | None = None,
    stopping: pb.Stopping | None = None,
    output: pb.OutputOptions | None = None,
    **fields: object,
) -> pb.GenerateRequest:
    """A small request that is right but for what is given."""
    return pb.GenerateRequest(
        prompt=prompt or pb.Prompt(text="My favourite"),
        sampling=sampling,
        stopping=stopping or pb.Stopping(max_tokens=1),
        output=output,
        **fields,  # type: ignore[arg-type]
    )


def ids(*token_ids: int) -> pb.Prompt:
    return pb.Prompt(token_ids=pb.TokenIds(ids=token_ids))


def sampling(**fields: object) -> pb.GenerateRequest:
    return generate(sampling=pb.Sampling(**fields))  # type: ignore[arg-type]


def stopping(**fields: object) -> pb.GenerateRequest:
    return generate(stopping=pb.Stopping(**({"max_tokens": 1} | fields)))  # type: ignore[arg-type]


def output(**fields: object) -> pb.GenerateRequest:
    return generate(output=pb.OutputOptions(**fields))  # type: ignore[arg-type]


def bias(token: int, value: float) -> pb.GenerateRequest:
    return sampling(logit_bias={token: value})


@dataclass(frozen=True)
class Case:
    """A request, the fields that are wrong in it, and what else its status tells."""

    request: pb.GenerateRequest
    fields: list[str]
    metadata: dict[str, str] = field(default_factory=dict)
    says: str = ""


def too_long(prompt: int) -> dict[str, str]:
    return {"promptTokens": str(prompt), "contextLength": "4096"}


CASES = {
    # prompt
    "no prompt": Case(pb.GenerateRequest(), ["prompt"], says="one of text, token_ids, chat"),
    "an empty prompt": Case(generate(pb.Prompt()), ["prompt"]),
    "no ids": Case(generate(ids()), ["prompt.token_ids.ids"], says="at least one"),
    "an id past the vocabulary": Case(generate(ids(1, 2048)), ["prompt.token_ids.ids[1]"], says="0 to 2047"),
    "a huge id": Case(generate(ids(INT32)), ["prompt.token_ids.ids[0]"]),
    "a negative id": Case(generate(ids(5, 6, -1, -2)), ["prompt.token_ids.ids[2]"], says="is -1"),
    "chat without a template": Case(
        generate(pb.Prompt(chat=pb.Chat(messages=[pb.ChatMessage(role=pb.ROLE_USER, content="hi")]))),
        ["prompt.chat"],
        says="no chat template",
    ),
    "an empty chat": Case(generate(pb.Prompt(chat=pb.Chat())), ["prompt.chat"]),
    # sampling
    "temperature below 0": Case(sampling(temperature=-0.1), ["sampling.temperature"], says="0 to 2"),
    "temperature above 2": Case(sampling(temperature=2.01), ["sampling.temperature"]),
    "temperature NaN": Case(sampling(temperature=nan), ["sampling.temperature"]),
    "temperature infinite": Case(sampling(temperature=inf), ["sampling.temperature"]),
    "top_p 0": Case(sampling(top_p=0), ["sampling.top_p"], says="above 0"),
    "top_p below 0": Case(sampling(top_p=-0.5), ["sampling.top_p"]),
    "top_p above 1": Case(sampling(top_p=1.5), ["sampling.top_p"]),
    "top_p NaN": Case(sampling(top_p=nan), ["sampling.top_p"]),
    "top_k below 0": Case(sampling(top_k=-1), ["sampling.top_k"]),
    "min_p below 0": Case(sampling(min_p=-0.01), ["sampling.min_p"]),
    "min_p above 1": Case(sampling(min_p=1.01), ["sampling.min_p"]),
    "min_p NaN": Case(sampling(min_p=nan), ["sampling.min_p"]),
    "repetition_penalty 0": Case(sampling(repetition_penalty=0), ["sampling.repetition_penalty"]),
    "repetition_penalty below 0": Case(sampling(repetition_penalty=-1), ["sampling.repetition_penalty"]),
    "repetition_penalty infinite": Case(sampling(repetition_penalty=inf), ["sampling.repetition_penalty"]),
    "repetition_penalty NaN": Case(sampling(repetition_penalty=nan), ["sampling.repetition_penalty"]),
    "presence_penalty above 2": Case(sampling(presence_penalty=2.5), ["sampling.presence_penalty"]),
    "presence_penalty below -2": Case(sampling(presence_penalty=-2.5), ["sampling.presence_penalty"]),
    "presence_penalty infinite": Case(sampling(presence_penalty=-inf), ["sampling.presence_penalty"]),
    "frequency_penalty above 2": Case(sampling(frequency_penalty=2.5), ["sampling.frequency_penalty"]),
    "frequency_penalty NaN": Case(sampling(frequency_penalty=nan), ["sampling.frequency_penalty"]),
    "a bias above 100": Case(bias(5, 100.5), ["sampling.logit_bias[5]"], says="-100 to 100"),
    "a bias below -100": Case(bias(5, -101), ["sampling.logit_bias[5]"]),
    "a bias NaN": Case(bias(5, nan), ["sampling.logit_bias[5]"]),
    "a bias infinite": Case(bias(5, -inf), ["sampling.logit_bias[5]"]),
    "a bias past the vocabulary": Case(bias(2048, 1), ["sampling.logit_bias[2048]"], says="0 to 2047"),
    "a bias for a negative id": Case(bias(-1, 1), ["sampling.logit_bias[-1]"]),
    # stopping
    "max_tokens 0": Case(stopping(max_tokens=0), ["stopping.max_tokens"], says="at least 1"),
    "max_tokens below 0": Case(stopping(max_tokens=-5), ["stopping.max_tokens"]),
    "min_tokens below 0": Case(stopping(min_tokens=-1), ["stopping.min_tokens"]),
    "min_tokens above max_tokens": Case(stopping(max_tokens=3, min_tokens=4), ["stopping.min_tokens"]),
    "min_tokens above the context": Case(generate(stopping=pb.Stopping(min_tokens=5000)), ["stopping.min_tokens"]),
    "17 stop strings": Case(stopping(stop=[str(i) for i in range(17)]), ["stopping.stop"], says="at most 16"),
    "an empty stop string": Case(stopping(stop=["a", ""]), ["stopping.stop[1]"]),
    "a very long stop string": Case(stopping(stop=["a" * 1001]), ["stopping.stop[0]"]),
    "a stop id past the vocabulary": Case(stopping(stop_token_ids=[7, 9999]), ["stopping.stop_token_ids[1]"]),
    "a negative stop id": Case(stopping(stop_token_ids=[-7]), ["stopping.stop_token_ids[0]"]),
    # output
    "logprobs above 20": Case(output(logprobs=21), ["output.logprobs"], says="0 to 20"),
    "logprobs below 0": Case(output(logprobs=-1), ["output.logprobs"]),
    "prompt_logprobs above 20": Case(output(prompt_logprobs=21), ["output.prompt_logprobs"], says="0 to 20"),
    "prompt_logprobs below 0": Case(output(prompt_logprobs=-1), ["output.prompt_logprobs"]),
    # the constraint
    "a constraint of no form": Case(generate(constraint=pb.Constraint()), ["constraint"], says="json_schema, regex"),
    "a schema that is no JSON": Case(
        generate(constraint=pb.Constraint(json_schema="{")), ["constraint.json_schema"], says="no JSON"
    ),
    "a broken regular expression": Case(generate(constraint=pb.Constraint(regex="(")), ["constraint.regex"]),
    "a constraint without an end": Case(
        generate(
            constraint=pb.Constraint(regex="a"), stopping=pb.Stopping(ignore_eos=True, stop=["a"], stop_token_ids=[5])
        ),
        ["stopping.ignore_eos", "stopping.stop", "stopping.stop_token_ids"],
    ),
    # the request
    "n 0": Case(generate(n=0), ["n"], says="1 to 8"),
    "n above 8": Case(generate(n=9), ["n"]),
    "n below 0": Case(generate(n=-1), ["n"]),
    "priority above 100": Case(generate(priority=101), ["priority"]),
    "priority below -100": Case(generate(priority=-101), ["priority"], says="-100 to 100"),
    "a very long user": Case(generate(user="u" * 257), ["user"]),
    "a very long request id": Case(generate(request_id="r" * 257), ["request_id"]),
    "a request id that is not ASCII": Case(generate(request_id="d\u00e9j\u00e0"), ["request_id"]),
    "a request id of two lines": Case(generate(request_id="a\nb"), ["request_id"]),
    # several at once
    "many wrong fields": Case(
        pb.GenerateRequest(
            prompt=ids(-1),
            sampling=pb.Sampling(temperature=9, top_p=0, min_p=2, top_k=-2, logit_bias={9999: 200}),
            stopping=pb.Stopping(max_tokens=0, min_tokens=-1, stop=[""], stop_token_ids=[-1]),
            output=pb.OutputOptions(logprobs=99, prompt_logprobs=99),
            n=0,
            priority=1000,
        ),
        [
            "prompt.token_ids.ids[0]",
            "stopping.max_tokens",
            "stopping.min_tokens",
            "stopping.stop[0]",
            "stopping.stop_token_ids[0]",
            *(f"sampling.{name}" for name in ("temperature", "top_p", "top_k", "min_p")),
            *["sampling.logit_bias[9999]"] * 2,
            "output.logprobs",
            "output.prompt_logprobs",
            "n",
            "priority",
        ],
    ),
    # the context
    "a prompt of the whole context": Case(generate(ids(*[5] * 4096)), ["prompt"], too_long(4096)),
    "a prompt longer than the context": Case(generate(pb.Prompt(text="a b " * 5000)), ["prompt"], {}, "4096"),
    "max_tokens over the context": Case(
        generate(ids(*[5] * 4000), stopping=pb.Stopping(max_tokens=97)), ["stopping.max_tokens"], too_long(4000)
    ),
    "max_tokens over 32 bits with the prompt": Case(
        generate(ids(5), stopping=pb.Stopping(max_tokens=INT32)), ["stopping.max_tokens"], too_long(1)
    ),
}


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_request_is_refused_with_every_wrong_field(name: str, method: str, serving: Serving) -> None:
    case, stub = CASES[name], serving.client.stub
    call = (lambda r: stub.Generate(r)) if method == "Generate" else (lambda r: list(stub.GenerateStream(r)))
    told = failure(lambda: call(case.request))
    assert (told.code, told.reason, told.fields) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", case.fields)
    assert told.details == ["ErrorInfo", "BadRequest"]
    assert case.says in told.text
    assert case.metadata.items() <= told.metadata.items()
    assert serving.engine.counters().waiting == serving.engine.counters().running == 0


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize(
    "request_",
    [
        sampling(temperature=0, top_p=1, top_k=0, min_p=0, repetition_penalty=0.01, seed=-(2**63)),
        sampling(temperature=2, top_p=1e-6, top_k=INT32, min_p=1, repetition_penalty=1e30, seed=2**63 - 1),
        sampling(presence_penalty=2, frequency_penalty=-2, logit_bias={0: -100, 2047: 100}),
        stopping(max_tokens=1, min_tokens=1, stop=["a"] * 16, stop_token_ids=[0, 2047]),
        stopping(stop=["\u00e9" * 1000]),
        output(logprobs=20, token_ids=True, special_tokens=True, trace=True),
        generate(n=8, priority=-100, user="u" * 256, request_id="r" * 256),
        generate(n=1, priority=100, model="demo"),
        generate(ids(5), stopping=pb.Stopping(max_tokens=4095, stop_token_ids=range(2048))),
        generate(ids(*[5] * 4095)),
        generate(ids(0, 1, 2, 2047)),
        generate(pb.Prompt(text="")),
    ],
)
def test_the_bounds_themselves_are_allowed(request_: pb.GenerateRequest, serving: Serving) -> None:
    answer = serving.client.generate(request_)
    assert [o.index for o in answer.outputs] == list(range(max(1, request_.n)))


def test_very_many_wrong_entries_still_fit_into_headers(serving: Serving) -> None:
    wrong = sampling(logit_bias={5000 + i: 500 for i in range(1000)})
    told = failure(lambda: serving.client.generate(wrong))
    assert told.code is StatusCode.INVALID_ARGUMENT
    assert len(told.fields) == 32
    many = generate(pb.Prompt(text="x"), stopping=pb.Stopping(max_tokens=1, stop=[""] * 2000))
    assert failure(lambda: serving.client.generate(many)).fields[0] == "stopping.stop"
