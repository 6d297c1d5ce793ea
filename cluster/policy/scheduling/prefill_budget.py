"""How much prefill may ride along with decodes. A long prompt must not make the next token of every stream late, nor
may prompts enter so slowly that slots stay empty. How many prompt tokens a step bears depends on the machine, so the
cost of a step is learned from earlier steps.
"""

import math

from model.batch import StepPlan

_FORGET = 0.98  # weight of a step against the one after it: about 50 count
_PROBE_EVERY = 16  # steps with prefill before one goes without, so that what it adds stays visible
_GROWTH = 4  # a step has at most this many times the recent prefill, while its cost is not known well
_FIXED_SHARE = 0.05  # of a step that holds nobody up: what it costs however few tokens it has
_LEAST_FREE, _UNKNOWN = 256, 512  # tokens of such a step: at least, and before its cost is known
_CHOICES = ((0, 1, 2), (0, 1), (0, 2), (1, 2), (0,), (1,), (2,))  # unknowns of a step's cost that are not 0
_OUTLIER = 4.0  # a step counts as at most this many times as long as expected, or as most: an expert may have restarted


class StepCost:
    """seconds = base + decode * (sequences that decode) + prefill * (prompt tokens), none of them negative, fitted to
    the last steps by least squares with exponential forgetting, from its normal equations. A cost that is
    lost in noise is 0.
    """

    def __init__(self) -> None:
        self._equations = [[0.0] * 4 for _ in range(3)]  # of each unknown: sums of products, and the right-hand side
        self.base = self.decode = self.prefill = 0.0
        self._count, self._mean = 0, 0.0  # of the steps' seconds

    def observe(self, decodes: int, prefill_tokens: int, seconds: float) -> None:
        if self._count >= _PROBE_EVERY:
            seconds = min(seconds, _OUTLIER * max(self._mean, self.expect(decodes, prefill_tokens)))
        self._count += 1
        self._mean += max(1 - _FORGET, 1 / self._count) * (seconds - self._mean)
        row = (1.0, float(decodes), float(prefill_tokens))
        self._equations = [
            [_FORGET * old + factor * new for old, new in zip(equation, (*row, seconds), strict=True)]
            for factor, equation in zip(row, self._equations, strict=True)
        ]
        self.base, self.decode, self.prefill = self._solve()

    def expect(self, decodes: int, prefill_tokens: int) -> float:
        """Seconds that such a step takes."""
        return self.base + self.decode * decodes + self.prefill * prefill_tokens

    def _solve(self) -> list[float]:
        """Non-negative least squares (Lawson and Hanson 1974): while a burst fills the slots, decodes and prompts grow
        together, and one of them would come out negative. Three unknowns are few enough to try which of them are 0.
        """
        best, best_fit = [0.0] * 3, 0.0
        for unknowns in _CHOICES:
            found = _least_squares(self._equations, unknowns)
            if min(found) >= 0:
                if len(unknowns) == len(found):
                    return found
                fit = sum(found[i] * self._equations[i][3] for i in unknowns)  # of the sum of squares, what it explains
                if fit > best_fit:
                    best, best_fit = found, fit
        return best


def _least_squares(equations: list[list[float]], unknowns: tuple[int, ...]) -> list[float]:
    """Gaussian elimination. The diagonal is raised a little, or what never varied would make it singular."""
    rows = [[equations[i][j] + (i == j) * (1e-6 * equations[i][i] + 1e-12) for j in (*unknowns, 3)] for i in unknowns]
    for i, row in enumerate(rows):
        for later in rows[i + 1 :]:
            factor = later[i] / row[i]
            later[:] = [b - factor * a for a, b in zip(row, later, strict=True)]
    found = [0.0] * len(equations)
    for i in reversed(range(len(rows))):
        known = sum(rows[i][j] * found[unknowns[j]] for j in range(i + 1, len(rows)))
        found[unknowns[i]] = (rows[i][-1] - known) / rows[i][i]
    return found


class PrefillBudget:
    """How many prompt tokens the next step may take.

    **Beside streams.** Time is shared by heads: a wave of requests, which came while others of it still waited for
    their first token, gets as much of it for prompts as the streams that ran before get for their tokens, each counting
    once. So a step may take 1 + wave / streams times as long as its decodes alone, and `slowdown` times in any case.
    A burst fills the slots at nearly full speed; one long prompt beside sixteen streams adds half of a step to them.

    **Beside none**, as nothing ran before the wave: as many as make what a step costs in any case a twentieth of it.
    More would gain little, and keep whoever comes next, or leaves, waiting longer.
    """

    def __init__(self, slowdown: float, least: int = 16) -> None:
        """At least `least` prefill tokens are always allowed, because a prompt must get on, too."""
        self._slowdown, self._least = slowdown, least
        self._cost, self._alone = StepCost(), StepCost()  # of steps that decode, and of prompts alone
        self._mixed = _PROBE_EVERY  # steps since one of decodes alone; the first is to be one
        self._lately = 0.0  # prefill tokens of mixed steps, a running mean
        self._streams = 0  # that ran before the wave, and still do

    def observe(self, plan: StepPlan, seconds: float) -> None:
        prefill = sum(chunk.length for chunk in plan.chunks if chunk.length > 1)
        decodes = sum(chunk.length == 1 for chunk in plan.chunks)
        if not decodes:
            self._alone.observe(0, prefill, seconds)
            return
        self._cost.observe(decodes, prefill, seconds)
        self._mixed = self._mixed + 1 if prefill else 0
        if prefill:
            self._lately += (prefill - self._lately) / 4

    def tokens(self, decodes: int, newcomers: int) -> int:
        """Prompt tokens of a step with so many decodes, while so many others have no token yet; 0 at times, to see what
        decodes alone cost.
        """
        self._streams = min(self._streams, decodes) if newcomers else decodes
        if not self._streams:
            return self._free()
        if self._mixed >= _PROBE_EVERY:
            return 0
        wave = newcomers + decodes - self._streams
        token, bound = self._cost.prefill, _GROWTH * max(self._least, self._lately)
        room = (max(self._slowdown, 1 + wave / self._streams) - 1) * self._cost.expect(decodes, 0)
        return max(self._least, int(min(bound, room / token if token > 0 else math.inf)))

    def settle(self, decodes: int) -> None:
        """A step was planned without being asked for: nobody waits, and all that decode are streams from now on."""
        self._streams = decodes

    def _free(self) -> int:
        token = self._alone.prefill
        if token <= 0:
            return _UNKNOWN
        return max(_LEAST_FREE, int(self._alone.base / token / _FIXED_SHARE))
