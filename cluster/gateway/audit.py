"""One line in the log for every change an operator asks for: who, from where, what, and what came of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from cluster.gateway.errors import ApiError, Context
from cluster.gateway.rpc.auth import caller

log = logging.getLogger("eightwinds.audit")

_LONGEST = 500


@contextmanager
def audited(request: Message, context: Context) -> Iterator[None]:
    """Write the line when the change has been made or refused. The caller is `-` where no tokens are asked for."""
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except ApiError as error:
        outcome = f"refused: {error.reason}"
        raise
    finally:
        what = MessageToString(request, as_one_line=True)
        text = what if len(what) <= _LONGEST else what[: _LONGEST - 3] + "..."
        name = type(request).__name__.removesuffix("Request")
        log.info("caller=%s peer=%s %s {%s} %s", caller() or "-", context.peer(), name, text, outcome)
