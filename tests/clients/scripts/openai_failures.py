"""openai: failures become the exceptions that programs wait for, and are tried again where that helps."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI, RateLimitError

from tests.clients.checks import Target, check, holds, raising, run, same
from tests.clients.scripts.openai_answers import HELLO, TEXT, client_of


def narrow(target: Target, retries: int = 0) -> OpenAI:
    return OpenAI(base_url=f"http://{target.narrow}/v1", api_key=target.token, max_retries=retries, timeout=120)


@contextmanager
def a_full_queue(target: Target) -> Iterator[Callable[[], None]]:
    """An output runs and 15 wait, of 16 more than one client may have; until they are left: by the function, or by the
    block's end.
    """
    client = narrow(target, retries=10)  # the streams of the check before may be leaving still
    with ExitStack() as streams:
        for number in range(2):
            fields = {"max_tokens": 1900, "n": 8, "extra_body": {"ignore_eos": True}, "stream": True}
            stream = streams.enter_context(client.completions.create(model=target.model, prompt=TEXT, **fields))
            if not number:
                next(iter(stream))  # one of the eight has left the queue
        yield streams.close


@check
def another_model_is_not_found(target: Target) -> None:
    for ask in (client_of(target).models.retrieve, lambda model: _chat(target, model=model)):
        with raising(NotFoundError) as caught:
            ask("gpt-5")
        same((caught[0].code, caught[0].param, caught[0].status_code), ("model_not_found", "model", 404))
        holds(target.model in caught[0].message, caught[0].message)


@check
def a_prompt_that_is_too_long_says_so_as_openai_does(target: Target) -> None:
    with raising(BadRequestError) as caught:
        _chat(target, messages=[{"role": "user", "content": "wind " * 3000}])
    same(caught[0].code, "context_length_exceeded")
    holds("This model's maximum context length is 2048 tokens." in caught[0].message, caught[0].message)
    with raising(BadRequestError) as caught:
        _chat(target, max_tokens=4000)
    same(caught[0].code, "context_length_exceeded")


@check
def a_wrong_field_is_named(target: Target) -> None:
    wrong = {"temperature": 3, "top_logprobs": 30, "n": 99, "stop": [7], "response_format": {"type": "xml"}}
    for name, value in wrong.items():
        with raising(BadRequestError) as caught:
            _chat(target, logprobs=True, **{name: value})
        holds((caught[0].param or "").startswith(name), f"{name}: {caught[0].param}")
        holds(caught[0].type == "invalid_request_error" and "Traceback" not in caught[0].message)


@check
def no_token_or_a_wrong_one_is_refused(target: Target) -> None:
    client = OpenAI(base_url=f"http://{target.narrow}/v1", api_key="wrong", max_retries=0)
    with raising(AuthenticationError) as caught:
        client.models.list()
    same(caught[0].status_code, 401)
    same([model.id for model in narrow(target).models.list()], [target.model])


@check
def a_full_queue_is_a_rate_limit_with_a_time(target: Target) -> None:
    with a_full_queue(target), raising(RateLimitError) as caught:
        narrow(target).chat.completions.create(model=target.model, messages=HELLO, max_tokens=1)
    same(caught[0].code, "queue_full")
    holds(1 <= int(caught[0].response.headers["retry-after"]) <= 120)


@check
def the_client_comes_again_when_it_is_told_to(target: Target) -> None:
    with a_full_queue(target) as leave:
        freed = threading.Timer(1.5, leave)
        freed.start()
        begin = time.monotonic()
        raw = narrow(target, retries=60).chat.completions.with_raw_response.create(
            model=target.model, messages=HELLO, max_tokens=1
        )
        seconds = time.monotonic() - begin
        freed.join()
    same(raw.parse().usage.completion_tokens, 1)
    holds(raw.retries_taken >= 1, "it was refused at first")
    holds(seconds >= raw.retries_taken, f"{raw.retries_taken} tries in {seconds:.1f} s: a second lies before each")


def _chat(target: Target, **fields: object) -> object:
    return client_of(target).chat.completions.create(
        **{"model": target.model, "messages": HELLO, "max_tokens": 4} | fields
    )


if __name__ == "__main__":
    sys.exit(run("openai"))
