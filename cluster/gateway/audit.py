"""One line in the log for each change that an operator asks for: caller, peer, request and outcome."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString

from cluster.gateway.auth import Caller
from cluster.gateway.errors import ApiError, cut

log = logging.getLogger("eightwinds.audit")


@contextmanager
def audited(request: Message, caller: Caller) -> Iterator[None]:
    """Write the line when the change has been made or refused. The caller is `-` where no tokens are asked for."""
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except ApiError as error:
        outcome = f"refused: {error.reason}"
        raise
    finally:
        text = cut(MessageToString(request, as_one_line=True), 500)
        name = type(request).__name__.removesuffix("Request")
        log.info("caller=%s peer=%s %s {%s} %s", caller.name or "-", caller.peer, name, text, outcome)
