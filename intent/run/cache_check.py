"""Check, on a sample of messages that engines label again, whether the label cache still agrees with the engines.

A cache that agrees too seldom is dropped, and the run continues without it. Knows receipts and caches; nothing of Ray.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from intent.errors import IntentError
from intent.label_cache import LabelCache
from intent.run.part import Receipt

# The quantile for chance: 99.9 % of the samples of a good cache pass. It is strict because the check runs many times in a run.
Z = 3.09


class Trust:
    """Judge the run's caches by their receipts. `distrusted`: tokens (scope and epoch) of dropped caches. `tell`: called with a
    line for the operator.
    """

    def __init__(self, caches: Sequence[LabelCache], tell: Callable[[str], None]):
        self.caches = {cache.scope.name: cache for cache in caches}
        self.tell, self.distrusted = tell, set()
        self.rechecked: Counter[str] = Counter()
        self.agreed: Counter[str] = Counter()

    def weigh(self, receipt: Receipt | None) -> None:
        """Count a part's sample. Drop its cache if the cache agrees too seldom to be explained by chance."""
        if receipt and receipt.asked:
            self.rechecked[receipt.cache] += receipt.asked
            self.agreed[receipt.cache] += receipt.agreed
            self._judge(receipt.cache, chance=True)

    def close(self) -> None:
        """Check once more at the end of labelling, without an allowance for chance."""
        for token in list(self.rechecked):
            self._judge(token, chance=False)

    def _judge(self, token: str, chance: bool) -> None:
        cache, rechecked = self.caches.get(token.split("/")[0]), self.rechecked[token]
        if cache is None or token in self.distrusted:
            return
        least, share = cache.agreement, self.agreed[token] / rechecked
        # In so small a sample, a single message would decide.
        if rechecked * (1 - least) < 1 - 1e-9 or share >= least:
            return
        if chance and share >= least - Z * math.sqrt(least * (1 - least) / rechecked):
            return
        self.distrusted.add(token)
        reason = f"{self.agreed[token]:,} of {rechecked:,} messages that were asked again agree, under cache.agreement={least}"
        try:
            cache.drop(reason, token.split("/")[1])
        except (IntentError, OSError) as error:
            self.tell(f"the label cache could not be dropped in the store, and is no longer used: {error}")
        self.tell(f"the label cache is dropped and the run goes on without it: {reason}")
