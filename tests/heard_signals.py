"""Signals that come ignored, as under nohup or behind a shell's &, are ignored by whatever is started, too."""

import signal


def let_children_hear_signals() -> None:
    """Give what is started from now on the default of such signals. This process goes on to do nothing on them."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)  # a handler is not inherited: a new program has the default
