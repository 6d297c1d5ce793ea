"""The order in which sequences wait for a slot.
Higher priority first; among equals the clients that have no slot at all; then sequences that have run before and were
preempted; then the client that was served least, by the virtual token counters of Sheng et al. 2024 ("Fairness in
Serving Large Language Models"); and each client's own in order of arrival. So no sequence starves for another of its
priority.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from cluster.policy.scheduling.sequence import Sequence

_PROMPT_COST, _OUTPUT_COST = 1, 2  # the paper's weights of a prompt token and of a token put out
_MOST_CLIENTS = 1024  # counters kept of clients that have nothing here


class FairQueue:
    """Sequences that wait, and what each client has been served."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[int, str], deque[Sequence]] = {}  # (-priority, client) -> its sequences
        self._resumed: list[Sequence] = []
        self._served = Counter[str]()
        self._present = Counter[str]()  # client -> its sequences, waiting or running
        self.tokens = 0  # that the waiting have to run

    def __len__(self) -> int:
        return len(self._resumed) + sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._resumed
        for lane in self._lanes.values():
            yield from lane

    def waiting_of(self, client: str) -> int:
        """Without sequences that have run before."""
        return sum(len(lane) for (_, name), lane in self._lanes.items() if name == client)

    def arrive(self, sequence: Sequence) -> None:
        """A new sequence. A client that had none is lifted to the least served one here: absence earns nothing."""
        client = sequence.request.client
        if client not in self._present:
            least = min((self._served[name] for name in self._present), default=0)
            self._served[client] = max(self._served[client], least)
        self._present[client] += 1
        self._lanes.setdefault((-sequence.request.priority, client), deque()).append(sequence)
        self.tokens += sequence.pending

    def resume(self, sequence: Sequence) -> None:
        self._resumed.append(sequence)
        self.tokens += sequence.pending

    def first(self, holding: Collection[str] = ()) -> Sequence | None:
        """The sequence whose turn it is; `holding` are the clients that have slots."""

        def turn(sequence: Sequence, resumed: bool) -> tuple[int, bool, bool, int, tuple[int, int], Sequence]:
            r, served = sequence.request, 0 if resumed else self._served[sequence.request.client]
            return -r.priority, r.client in holding, not resumed, served, sequence.rank, sequence

        turns = [turn(s, True) for s in self._resumed] + [turn(lane[0], False) for lane in self._lanes.values()]
        return min(turns)[-1] if turns else None  # no two have the same rank

    def enter(self, sequence: Sequence, tokens: int) -> None:
        """A sequence gets its slot; its client is charged, once, for the `tokens` of its prompt that are run."""
        if self.drop(sequence):
            self._served[sequence.request.client] += _PROMPT_COST * tokens

    def sampled(self, sequence: Sequence) -> None:
        self._served[sequence.request.client] += _OUTPUT_COST

    def drop(self, sequence: Sequence) -> bool:
        """A sequence no longer waits; False if it has run before. One that gives up must `leave`, too."""
        self.tokens -= sequence.pending
        if sequence in self._resumed:
            self._resumed.remove(sequence)
            return False
        key = (-sequence.request.priority, sequence.request.client)
        self._lanes[key].remove(sequence)
        if not self._lanes[key]:
            del self._lanes[key]
        return True

    def leave(self, sequence: Sequence) -> None:
        client = sequence.request.client
        self._present[client] -= 1
        if not self._present[client]:
            del self._present[client]
        if not self._present:
            self._served.clear()
        elif len(self._served) > len(self._present) + _MOST_CLIENTS:
            absent = self._served.keys() - self._present.keys()  # the smallest counters change the order least
            for name in sorted(absent, key=self._served.__getitem__)[: _MOST_CLIENTS // 2]:
                del self._served[name]

    def check(self) -> None:
        assert all(self._lanes.values()), "an empty lane is kept"
        assert self.tokens == sum(s.pending for s in self), "waiting tokens are miscounted"
        waiting = Counter(s.request.client for s in self)
        assert all(s.slot < 0 and not s.pages for s in self), "a waiting one holds a slot or pages"
        assert waiting <= self._present, "a client's sequences are lost"
        assert self._present.keys() <= self._served.keys(), "a client without a counter"


def gives_way(newcomer: Sequence, running: Iterable[Sequence], slots: Mapping[str, int]) -> Sequence | None:
    """The sequence that makes room for a client without a slot: the last one of the client that has most of the
    `slots`. A client's only slot is not taken, nor one of a higher priority.
    """
    several = [s for s in running if slots[s.request.client] > 1 and s.request.priority <= newcomer.request.priority]
    return max(several, key=lambda s: (slots[s.request.client], s.rank), default=None)
