"""The options of a request, one field each. From this table come the options of the commands, the client's requests,
and the server's check of sampling parameters, in requests and in a checkpoint's defaults alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, NamedTuple


class RequestOption(NamedTuple):
    """A field's message in GenerateRequest ("" is GenerateRequest itself), the help of its command-line option and, if
    the field is a sampling parameter with a range, that range in words and as a test.
    """

    message: str
    help: str
    range: str = ""
    allows: Callable[[float], bool] | None = None


def _option(*row: Any, default: Any = None) -> Any:
    return field(default=default, metadata={"option": RequestOption(*row)})


_request = partial(_option, "")
_sampling = partial(_option, "sampling")
_stopping = partial(_option, "stopping")
_constraint = partial(_option, "constraint", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a request, by the names of its fields; None, "" and () are left to the server."""

    max_tokens: int | None = _stopping("At most this many tokens.")
    min_tokens: int | None = _stopping("No end before this many tokens.")
    temperature: float | None = _sampling("0 is greedy.", "0 to 2; 0 is greedy", lambda v: 0 <= v <= 2)
    top_p: float | None = _sampling(
        "Keep the likeliest tokens with this much probability.", "above 0 and at most 1", lambda v: 0 < v <= 1
    )
    top_k: int | None = _sampling(
        "Keep this many of the likeliest tokens; 0 keeps all.", "at least 0; 0 keeps all", lambda v: v >= 0
    )
    min_p: float | None = _sampling(
        "Drop tokens less likely than this share of the likeliest.", "0 to 1", lambda v: 0 <= v <= 1
    )
    repetition_penalty: float | None = _sampling(
        "Above 1: against what prompt and text hold.", "above 0; 1 changes nothing", lambda v: 0 < v < float("inf")
    )
    presence_penalty: float | None = _sampling(
        "-2 to 2: against what was put out at all.", "-2 to 2", lambda v: -2 <= v <= 2
    )
    frequency_penalty: float | None = _sampling(
        "-2 to 2: against what was put out, each time.", "-2 to 2", lambda v: -2 <= v <= 2
    )
    seed: int | None = _sampling("Fixes the draw.")
    stop: Sequence[str] = _stopping("Stop at this text; may be repeated.", default=())
    ignore_eos: bool = _stopping("Go on after an end-of-sequence token.", default=False)
    n: int | None = _request("Number of continuations, 1 to 8.")
    logprobs: int | None = _option("output", "With --json: log-probabilities, and this many others.")
    json_schema: str = _constraint("JSON schema of the answer, or @FILE.")
    regex: str = _constraint("Regular expression that the answer matches.")
    priority: int = _request("-100 to 100; higher runs first.", default=0)


REQUEST_OPTIONS: dict[str, RequestOption] = {f.name: f.metadata["option"] for f in fields(Options)}

# Name, test, and what a refusal says.
SAMPLING_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = tuple(
    (name, option.allows, f"must be {option.range}") for name, option in REQUEST_OPTIONS.items() if option.allows
)
