"""Whether the label cache still says what the engines say: by the messages that it has and that were asked again.

One that agrees too seldom is dropped, and the night goes on without it. Knows receipts and caches; nothing of Ray.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from intent.errors import IntentError
from intent.label_cache import LabelCache
from intent.night.part import Receipt

# While a night is under way it is looked at many times: below the limit by chance alone, 99.9 % of samples are not.
Z = 3.09


class Trust:
    """`distrusted`: the tokens (scope and epoch) that were dropped. `tell`: called with what the operator should know."""

    def __init__(self, caches: Sequence[LabelCache], tell: Callable[[str], None]):
        self.caches = {cache.scope.name: cache for cache in caches}
        self.tell, self.distrusted = tell, set()
        self.asked: Counter[str] = Counter()
        self.agreed: Counter[str] = Counter()

    def weigh(self, receipt: Receipt | None) -> None:
        """Count a part's sample; drop its cache where that agrees too seldom by more than chance."""
        if receipt and receipt.asked:
            self.asked[receipt.cache] += receipt.asked
            self.agreed[receipt.cache] += receipt.agreed
            self._judge(receipt.cache, chance=True)

    def close(self) -> None:
        """At the end of the labelling: one look more, without any allowance for chance."""
        for token in list(self.asked):
            self._judge(token, chance=False)

    def _judge(self, token: str, chance: bool) -> None:
        cache, asked = self.caches.get(token.split("/")[0]), self.asked[token]
        if cache is None or token in self.distrusted:
            return
        least, share = cache.agreement, self.agreed[token] / asked
        # Of so few that one alone would decide, nothing is said.
        if asked * (1 - least) < 1 - 1e-9 or share >= least:
            return
        if chance and share >= least - Z * math.sqrt(least * (1 - least) / asked):
            return
        self.distrusted.add(token)
        said = f"{self.agreed[token]:,} of {asked:,} messages that were asked again agree, under cache.agreement={least}"
        try:
            cache.drop(said, token.split("/")[1])
        except (IntentError, OSError) as error:
            self.tell(f"the label cache could not be dropped in the store, and is not used further: {error}")
        self.tell(f"the label cache is dropped and the night goes on without it: {said}")
