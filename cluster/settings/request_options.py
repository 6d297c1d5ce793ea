"""The options of a request, one field each. From this table come the options of the commands, the client's requests,
and the server's check of sampling parameters, in requests and in a checkpoint's defaults alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple, get_type_hints


class RequestOption(NamedTuple):
    """A field's message in GenerateRequest ("" is GenerateRequest itself), the help of its command-line option and, if
    the field is a sampling parameter with a range, that range in words and as a test.
    """

    message: str
    help: str
    range: str = ""
    allows: Callable[[float], bool] | None = None


_sampling = partial(RequestOption, "sampling")
_stopping = partial(RequestOption, "stopping")
_constraint = partial(RequestOption, "constraint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a request asks for, by the names of its fields; None, "" and () are left to the server."""

    max_tokens: Annotated[int | None, _stopping("At most this many tokens.")] = None
    min_tokens: Annotated[int | None, _stopping("No end before this many tokens.")] = None
    temperature: Annotated[float | None, _sampling("0 is greedy.", "0 to 2; 0 is greedy", lambda v: 0 <= v <= 2)] = None
    top_p: Annotated[
        float | None,
        _sampling(
            "Keep the likeliest tokens with this much probability.", "above 0 and at most 1", lambda v: 0 < v <= 1
        ),
    ] = None
    top_k: Annotated[
        int | None,
        _sampling("Keep this many of the likeliest tokens; 0 keeps all.", "at least 0; 0 keeps all", lambda v: v >= 0),
    ] = None
    min_p: Annotated[
        float | None,
        _sampling("Drop tokens less likely than this share of the likeliest.", "0 to 1", lambda v: 0 <= v <= 1),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        _sampling(
            "Above 1: against what prompt and text hold.", "above 0; 1 changes nothing", lambda v: 0 < v < float("inf")
        ),
    ] = None
    presence_penalty: Annotated[
        float | None, _sampling("-2 to 2: against what was put out at all.", "-2 to 2", lambda v: -2 <= v <= 2)
    ] = None
    frequency_penalty: Annotated[
        float | None, _sampling("-2 to 2: against what was put out, each time.", "-2 to 2", lambda v: -2 <= v <= 2)
    ] = None
    seed: Annotated[int | None, _sampling("Fixes the draw.")] = None
    stop: Annotated[Sequence[str], _stopping("Stop at this text; may be repeated.")] = ()
    ignore_eos: Annotated[bool, _stopping("Go on after an end-of-sequence token.")] = False
    n: Annotated[int | None, RequestOption("", "Number of continuations, 1 to 8.")] = None
    logprobs: Annotated[
        int | None, RequestOption("output", "With --json: log-probabilities, and this many others.")
    ] = None
    json_schema: Annotated[str, _constraint("JSON schema of the answer, or @FILE.")] = ""
    regex: Annotated[str, _constraint("Regular expression that the answer matches.")] = ""
    priority: Annotated[int, RequestOption("", "-100 to 100; higher runs first.")] = 0


REQUEST_OPTIONS: dict[str, RequestOption] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Options, include_extras=True).items()
}

# Name, test, and what a refusal says.
SAMPLING_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = tuple(
    (name, option.allows, f"must be {option.range}") for name, option in REQUEST_OPTIONS.items() if option.allows
)
