"""Every abuse by its name: what strangers do without a token, and a tenant called mallory with one."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.abuse import strangers, tenant
from tests.abuse.target import Target

Abuse = Callable[[Target, float], str]  # the server, for how many seconds; what was done


def everything(server: Target, seconds: float) -> str:
    """All of the others at the same time, on threads of one process: about a core of work for whoever sends it."""
    others = [abuse for name, abuse in ABUSES.items() if abuse is not everything]
    with ThreadPoolExecutor(len(others)) as pool:
        done = list(pool.map(lambda abuse: abuse(server, seconds), others))
    return "; ".join(done)


ABUSES: dict[str, Abuse] = {
    "resets": strangers.resets,
    "expanding-headers": strangers.expanding_headers,
    "unfinished-messages": strangers.unfinished_messages,
    "unfinished-messages-with-a-token": strangers.unfinished_messages_with_a_token,
    "half-requests": strangers.half_requests,
    "health-watches": strangers.health_watches,
    "refused-calls": tenant.refused_calls,
    "detokenizing": tenant.detokenizing,
    "tokenizing": tenant.tokenizing,
    "empty-chat-messages": tenant.empty_chat_messages,
    "costly-schemas": tenant.costly_schemas,
    "filling-the-slots": tenant.filling_the_slots,
    "load-watches": tenant.load_watches,
    "everything": everything,
}


def stranger_main(name: str, target: Target, seconds: float, answer: Any) -> None:
    """Be a stranger in a process of one's own: says in the queue `answer` that it has begun, and then what it did."""
    answer.put("begun")
    answer.put(ABUSES[name](target, seconds))
