"""The engine's hold on its head: adopted at the start, and anew after every loss."""

import logging
import time
from collections.abc import Callable

from actors.seams import HeadHandle, HeadLost, HeadTaken
from cluster.observe.said_once import SaidOnce
from model.batch import HeadInfo

log = logging.getLogger("eightwinds.engine")

_RETRY_SECONDS = 0.5


class Adoption:
    """`info` is the adopted head's. Each adoption has a higher `epoch`, which the head holds against plans. A head that
    is away is waited for, at most `grace` seconds, and not while `stopping`.
    """

    def __init__(
        self, head: HeadHandle, grace: float, clock: Callable[[], float], stopping: Callable[[], bool]
    ) -> None:
        self._head, self._grace, self._clock, self._stopping = head, grace, clock, stopping
        self._said = SaidOnce(log)
        self.epoch = time.time_ns()  # most likely above what an earlier engine had, else the head tells what that was
        self.info = HeadInfo("", page_count=0, page_size=1)
        self.current = False

    def renew(self) -> bool:
        """Adopt the head, or wait until it is back; False if the engine stops meanwhile. At first whatever epoch an
        earlier engine had, even one whose clock was ahead; later raises HeadTaken. Raises HeadLost.
        """
        end = self._clock() + self._grace
        self.current = False
        while not self._stopping():
            self.epoch += 1
            try:
                self.info = self._head.begin(self.epoch)
                self.current = True
                return True
            except HeadTaken as taken:
                if self.info.incarnation:
                    raise
                log.info("an earlier engine had epoch %d, by a clock that was ahead; going on from there", taken.epoch)
                self.epoch = taken.epoch
            except HeadLost as error:
                if self._clock() >= end:
                    raise
                self._said.warn(self._clock(), "the head does not answer yet", detail=error)
                time.sleep(_RETRY_SECONDS)
        return False
