"""Group the predictions of a batch by their answers, so that most work is done once for each different answer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from intent.engine import Prediction


@dataclass(frozen=True)
class Grouped:
    """Hold predictions and their groups. Predictions of a group differ only in message and confidences.

    `kinds`: the first prediction of each group. `codes`: int64 [predictions], the index in `kinds` of each prediction's group.
    """

    predictions: Sequence[Prediction]
    kinds: Sequence[Prediction]
    codes: np.ndarray

    @classmethod
    def of(cls, predictions: Sequence[Prediction]) -> "Grouped":
        """Group the predictions."""
        code_of: dict[object, int] = {}
        kinds: list[Prediction] = []
        codes = []
        for prediction in predictions:
            intent = prediction.intent
            key: object = (prediction.variant, prediction.status, prediction.reason, *(intent.values() if intent else ()))
            try:
                code = code_of.get(key)
            except TypeError:
                # A list of items has no hash.
                key = repr(key)
                code = code_of.get(key)
            if code is None:
                code = code_of[key] = len(kinds)
                kinds.append(prediction)
            codes.append(code)
        return cls(predictions, kinds, np.array(codes, np.int64))

    @property
    def confidence(self) -> np.ndarray:
        """Return the confidences, float64 [predictions]."""
        return np.array([prediction.confidence for prediction in self.predictions], np.float64)

    @property
    def slots(self) -> pa.Array:
        """Return the confidences of the slots, list<float32> [predictions]."""
        return pa.array([prediction.slots for prediction in self.predictions], pa.list_(pa.float32()))
