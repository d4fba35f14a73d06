"""Multinomial logistic regression on features of several layers: fitted, chosen on names held out, and calibrated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]
Split = tuple[Codes, Codes]
"""The items to fit on, and the items held out."""
FOLDS = 5
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Values of C, the inverse strength of regularisation."""
NEAR_BEST = 0.005
"""A lower layer is as good as the best one if its mean recall is not worse by more."""
NEVER = -50.0
"""Logit of a label that no item has."""


@dataclass(frozen=True)
class Linear:
    """A linear map from features to the logits of labels."""

    weights: Floats
    """Label, feature."""
    biases: Floats

    def logits(self, features: Features) -> Floats:
        """Item, label."""
        return np.asarray(features @ self.weights.T + self.biases, dtype=np.float64)


@dataclass(frozen=True)
class Choice:
    """A setting of the regression, and how it did on the items held out."""

    place: int
    """Of the layer among those given."""
    strength: float
    balanced: bool
    """Whether each label weighs the same in all, or each item."""
    macro_recall: float
    """Mean recall over the labels that there are."""
    logits: Floats
    """Of the items held out, in the order of `held_out`."""


def fit(features: Features, labels: Codes, strength: float, balanced: bool, count: int) -> Linear:
    """Fit on standardised features; the standardisation is folded into the map.

    Args:
        features: item, feature.
        labels: of the items, in 0..count-1, at least two different ones.
        strength: C of scikit-learn's LogisticRegression.
    """
    scaler = StandardScaler().fit(features.astype(np.float64))
    regression = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=1000)
    regression.fit(scaler.transform(features), labels)
    rows, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn then keeps one row, the second label's against the first's
        rows, intercepts = np.vstack([np.zeros_like(rows), rows]), np.array([0.0, *intercepts])
    weights, biases = np.zeros((count, features.shape[1])), np.full(count, NEVER)
    weights[regression.classes_] = rows / scaler.scale_
    biases[regression.classes_] = intercepts - (rows / scaler.scale_) @ scaler.mean_
    return Linear(weights, biases)


def folds(labels: Codes, groups: Sequence[str], seed: int) -> list[Split]:
    """Splits by which each item is held out once, with all others of its group; labels in like shares in all.

    Args:
        groups: of the items; each label should occur in two of them or more.
    """
    fewest = min(len({group for group, code in zip(groups, labels, strict=True) if code == label}) for label in set(labels))
    splitter = StratifiedGroupKFold(max(2, min(FOLDS, fewest)), shuffle=True, random_state=seed)
    return list(splitter.split(labels, labels, groups))


def held_out(splits: Sequence[Split]) -> Codes:
    """The items held out, split after split."""
    return np.concatenate([out for _, out in splits])


def candidates(features: Sequence[Features], labels: Codes, splits: Sequence[Split], count: int) -> Iterator[Choice]:
    """Every setting, tried on the items held out.

    Args:
        features: for each layer, [item, feature].
    """
    truth = labels[held_out(splits)]
    present = sorted(set(truth.tolist()))
    for place, strength, balanced in product(range(len(features)), STRENGTHS, (False, True)):
        layer = features[place]
        logits = np.concatenate(
            [fit(layer[inside], labels[inside], strength, balanced, count).logits(layer[out]) for inside, out in splits]
        )
        recall = recall_score(truth, logits.argmax(1), labels=present, average="macro", zero_division=0.0)
        yield Choice(place, strength, balanced, float(recall), logits)


def choose(tried: Sequence[Choice]) -> Choice:
    """The best setting of the lowest layer that is within NEAR_BEST of the best."""
    best = max(choice.macro_recall for choice in tried)
    layer = min(choice.place for choice in tried if choice.macro_recall >= best - NEAR_BEST)
    return max((choice for choice in tried if choice.place == layer), key=lambda choice: choice.macro_recall)


def fit_temperature(logits: Floats, truth: Codes) -> float:
    """The temperature under which the true labels are the likeliest (Guo et al. 2017, arXiv 1706.04599), between 0.1 and 10.

    Args:
        logits: item, label.
        truth: of the items, >= 1.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(np.exp(found.x))


def cross_fitted(logits: Floats, truth: Codes, groups: Sequence[str], seed: int) -> Floats:
    """Probabilities of items under a temperature that was fitted without them and their groups, [item, label]."""
    probabilities = np.empty_like(logits)
    for inside, out in folds(truth, groups, seed):
        probabilities[out] = np.exp(log_softmax(logits[out] / fit_temperature(logits[inside], truth[inside]), axis=1))
    return probabilities
