"""Which organ is this token? Probes that read anatomy from a frozen network's features (ch. 04).

A probe is a small classifier on features that do not change. What it can tell, the features hold; what it
cannot tell may still be there in a form that it cannot read. Three things make a probe look better than it
is, and each has a control here: neighbouring slices in training and test (`slabs`, one unit never on both
sides), the place alone (`position_tokens`), and the grey values alone (`pixel_tokens`).

The form of the probe is fixed, not tuned on what it reports: logistic regression with C = 0.01, or the 20
nearest neighbours, on standardised features.

Source: Alain & Bengio, Understanding intermediate layers using linear classifier probes, arXiv:1610.01644.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm.auto import tqdm

from alden_lite.data.organs import GROUPS, Array, whole_numbers

if TYPE_CHECKING:
    from alden_lite.alden.pvm import PVM
    from alden_lite.explain.feature_cache import FeatureCache

__all__ = [
    "LinearProbe",
    "ProbeResult",
    "TokenLabels",
    "Tokens",
    "as_linear",
    "collect_tokens",
    "cross_validated",
    "fit_probe",
    "make_probe",
    "pixel_tokens",
    "position_tokens",
    "slabs",
    "tested_on",
    "token_labels",
]


@dataclass(frozen=True)
class TokenLabels:
    """What a patch shows: `group` (..., h, w) uint8, the commonest in the patch (0 counts too, of two equally
    common the lower number), and `purity` (..., h, w) float32, that group's share of the patch."""

    group: np.ndarray
    purity: np.ndarray


def token_labels(groups: Array, patch_size: int = 14) -> TokenLabels:
    """The commonest organ group of every patch, and how much of the patch it fills.

    Args:
        groups: (..., H, W), whole numbers, 0 to 10.
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: if H or W is not a multiple of `patch_size`, or a number is no group.

    >>> found = token_labels(np.array([[4, 4], [4, 0]]), patch_size=2)
    >>> int(found.group[0, 0]), float(found.purity[0, 0])
    (4, 0.75)
    """
    numbers = whole_numbers(groups, "groups")
    if numbers.size and numbers.max() > len(GROUPS):
        raise ValueError(f"groups are numbers from 0 to {len(GROUPS)}, got {int(numbers.max())}")
    patches = _patches(numbers, patch_size)  # (..., h, w, patch_size ** 2)
    shares = np.stack([(patches == g).mean(-1, dtype=np.float32) for g in range(len(GROUPS) + 1)])
    return TokenLabels(shares.argmax(0).astype(np.uint8), shares.max(0))


def slabs(slices: Sequence[int] | np.ndarray, *, thickness: int = 12, margin: int = 2) -> np.ndarray:
    """The slab that each slice of one patient belongs to: a patient's stand-in for several patients.

    Slices beside each other are nearly the same picture, so a slab's first and last slices are left out: on
    the sample volume (2.5 mm) a slab is 30 mm, and no used slice lies within 12.5 mm of another slab's.

    Args:
        slices: indices in z.
        thickness: of a slab, in slices.
        margin: slices left out at either end of a slab.

    Returns:
        (n,) int: number of the slab, or -1 for a slice that is left out.

    Raises:
        ValueError: for a negative index or margin, or a margin that leaves nothing of a slab.

    >>> slabs([0, 2, 9, 10, 13, 14])
    array([-1,  0,  0, -1, -1,  1])
    """
    z = np.asarray(slices, dtype=int)
    if thickness < 1 or not 0 <= 2 * margin < thickness:
        raise ValueError(f"two margins of {margin} slices leave nothing of a slab of {thickness}")
    if (z < 0).any():
        raise ValueError("indices of slices start at 0")
    inside = (z % thickness >= margin) & (z % thickness < thickness - margin)
    return np.where(inside, z // thickness, -1)


# Tokens ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """N labelled tokens: `features` of every tap, (N, C) float32; `group` (N,), 1 to 10; `unit` (N,), the
    slab or patient they come from; `place` (N, 3): slice, row and column in the token grid."""

    features: dict[int, np.ndarray]
    group: np.ndarray
    unit: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    def where(self, chosen: np.ndarray) -> Tokens:
        """The tokens that a mask (N,) or an array of indices chooses: `tokens.where(tokens.unit != 3)`."""
        features = {tap: values[chosen] for tap, values in self.features.items()}
        return Tokens(features, self.group[chosen], self.unit[chosen], self.place[chosen])


def collect_tokens(
    pvm: PVM,
    hu: Array,
    groups: Array,
    *,
    units: Sequence[int] | np.ndarray,
    purity: float = 0.75,
    most: int = 60,
    seed: int = 0,
    grid: int = 14,
    cache: FeatureCache | None = None,
    progress: bool = True,
) -> Tokens:
    """Features of tokens that show one organ group, with the group and where they come from.

    Which tokens are taken depends on the labels and the seed, not on the network: two networks are asked
    about the same places. Maps of another grid are averaged (finer) or interpolated (coarser) to it.

    Args:
        pvm: the frozen network.
        hu: (B, H, W), HU.
        groups: (B, H, W), 0 to 10 (see `sample_groups`, `phantom_groups`).
        units: (B,), slab or patient of each slice; a slice of a negative unit is left out.
        purity: least share of a patch that its group fills.
        most: tokens of a group in a unit; drawn at random if there are more.
        seed: same seed, same tokens.
        grid: side of a token in pixels: the patch of the ViT that all networks are compared with.
        cache: where features are kept on disk; None computes them.
        progress: show a bar over the slices.

    Raises:
        ValueError: for shapes that do not fit each other, H or W not a multiple of `grid`, NaN or infinite
            HU, and if no patch is pure enough.
    """
    ct = torch.as_tensor(hu)
    numbers, unit = whole_numbers(groups, "groups"), np.asarray(units, dtype=int)
    _check_slices(ct, numbers, unit)
    group, place = _chosen(token_labels(numbers, grid), unit, purity=purity, most=most, seed=seed)
    shape = (ct.shape[1] // grid, ct.shape[2] // grid)
    parts: list[list[np.ndarray]] = [[] for _ in pvm.taps]
    for z in tqdm(np.unique(place[:, 0]), desc=f"features of {pvm.name}", disable=not progress):
        row, column = place[place[:, 0] == z, 1:].T
        for part, features in zip(parts, _maps(pvm, ct[z], cache), strict=True):
            part.append(_on_grid(features, shape)[0, :, row, column].T.cpu().numpy())
    features_of = {tap: np.concatenate(part) for tap, part in zip(pvm.taps, parts, strict=True)}
    return Tokens(features_of, group, unit[place[:, 0]], place)


def pixel_tokens(tokens: Tokens, hu: Array, *, grid: int = 14) -> np.ndarray:
    """A control: the HU of every token's own pixels, instead of features.

    Args:
        tokens: from `collect_tokens`.
        hu: (B, H, W), the slices that they come from.
        grid: side of a token in pixels, as there.

    Returns:
        (N, grid ** 2) float32, HU.

    Raises:
        ValueError: if H or W is not a multiple of `grid`, or a token lies outside.
    """
    patches = _patches(np.asarray(hu), grid)
    if patches.ndim != 4 or (tokens.place.max(0, initial=-1) >= patches.shape[:3]).any():
        raise ValueError(f"the tokens do not lie in slices of shape {tuple(np.shape(hu))}: give all of them")
    z, row, column = tokens.place.T
    return patches[z, row, column].astype(np.float32)


def position_tokens(tokens: Tokens, shape: tuple[int, int], *, waves: int = 8) -> np.ndarray:
    """A control: where in the slice a token lies, and nothing of what is to be seen there.

    A ViT is told every token's place, and organs have theirs. As features, the place is given by products of
    cosines, cos(pi k (row + 1/2) / h) cos(pi l (column + 1/2) / w), from which a linear probe can draw smooth
    regions (on a grid of 36, down to about 5 tokens).

    Args:
        tokens: from `collect_tokens`.
        shape: (h, w) of the token grid.
        waves: k and l run from 0 to waves - 1.

    Returns:
        (N, waves ** 2 - 1) float32; the constant is left out.

    Raises:
        ValueError: if a token lies outside the grid.
    """
    if (tokens.place[:, 1:].max(0, initial=-1) >= shape).any():
        raise ValueError(f"the tokens do not lie in a grid of {shape[0]} x {shape[1]}")
    k = np.arange(waves)
    rows, columns = (
        np.cos(np.pi * k * (tokens.place[:, axis, None] + 0.5) / size) for axis, size in enumerate(shape, 1)
    )
    products = rows[:, :, None] * columns[:, None]  # (N, waves, waves)
    return products.reshape(len(tokens), -1)[:, 1:].astype(np.float32)


# Probes ---------------------------------------------------------------------------------------------------


def make_probe(kind: str = "linear") -> Any:
    """A new probe, not fitted: a scikit-learn pipeline that standardises features and classifies.

    `linear` is a logistic regression with C = 0.01 and groups weighted to count the same, `knn` votes of the
    20 nearest tokens, weighted by 1 / distance.

    Raises:
        ValueError: for another kind.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "linear":
        classifier = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
    elif kind == "knn":
        classifier = KNeighborsClassifier(20, weights="distance")
    else:
        raise ValueError(f"a probe is 'linear' or 'knn', got {kind!r}")
    return make_pipeline(StandardScaler(), classifier)


def fit_probe(features: np.ndarray, group: np.ndarray, *, kind: str = "linear") -> Any:
    """A probe fitted on all tokens given: to be tested on other patients, or read as a layer (`as_linear`).

    It is fitted on one thread, which for a few thousand tokens is as fast as any, and many times faster on
    a machine that is busy.

    Args:
        features: (N, C), finite.
        group: (N,), 1 to 10.
        kind: of probe, see `make_probe`.

    Raises:
        ValueError: for lengths that differ, NaN, an unknown kind, or fewer than 2 groups.
    """
    from threadpoolctl import threadpool_limits

    _check_tokens(features, group, group)
    with threadpool_limits(1):
        return make_probe(kind).fit(features, group)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe said of tokens that it was not fitted on: `truth` and `predicted` (N,), group numbers;
    `unit` (N,), the slab or patient.

    Raises:
        ValueError: for lengths that differ, or numbers that are no group.
    """

    truth: np.ndarray
    predicted: np.ndarray
    unit: np.ndarray

    def __post_init__(self) -> None:
        if not self.truth.shape == self.predicted.shape == self.unit.shape == (len(self.truth),):
            shapes = f"{self.truth.shape}, {self.predicted.shape} and {self.unit.shape}"
            raise ValueError(
                f"a truth, a prediction and a unit for each of N tokens are needed, got {shapes}"
            )
        for name, numbers in (("true", self.truth), ("predicted", self.predicted)):
            if not np.isin(numbers, range(1, len(GROUPS) + 1)).all():  # 0 would be counted as the last group
                raise ValueError(
                    f"{name} groups are numbers from 1 to {len(GROUPS)}, got {np.unique(numbers)}"
                )

    @property
    def balanced_accuracy(self) -> float:
        """Mean over groups of the share of a group's tokens that were recognised; 0.1 for guessing in ten."""
        return float(np.mean(list(self.recall().values())))

    def recall(self) -> dict[str, float]:
        """Share of each group's tokens that were recognised, for the groups that there are."""
        table = self.confusion()
        return {
            name: float(row[number] / row.sum())
            for number, (name, row) in enumerate(zip(GROUPS, table, strict=True))
            if row.sum()
        }

    def confusion(self) -> np.ndarray:
        """(10, 10) counts of tokens: a row a true group, a column a predicted one, in the order of GROUPS."""
        table = np.zeros((len(GROUPS), len(GROUPS)), int)
        np.add.at(table, (self.truth.astype(int) - 1, self.predicted.astype(int) - 1), 1)
        return table

    def interval(self, level: float = 0.95, *, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Interval of the balanced accuracy by bootstrap over units (percentiles).

        Units, not tokens, are drawn, since tokens of one slab or patient resemble each other. A group that a
        draw lacks does not count in it, so a group that only two slabs hold makes the interval too narrow.
        And slabs of one patient say nothing about other patients.

        Args:
            level: share of the draws inside.
            draws: how many.
            seed: same seed, same interval.

        Raises:
            ValueError: with fewer than two units, or a level outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"a level lies between 0 and 1, got {level}")
        right, all_of = self._counts()
        if len(all_of) < 2:
            raise ValueError("an interval needs tokens of two units or more")
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(all_of), np.full(len(all_of), 1 / len(all_of)), size=draws)
        with np.errstate(invalid="ignore"):
            recall = (drawn @ right) / (drawn @ all_of)  # (draws, groups), NaN where a draw lacks a group
        low, high = np.quantile(np.nanmean(recall, axis=1), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(units, groups): tokens recognised, and all tokens."""
        units = np.unique(self.unit)[:, None, None] == self.unit  # (units, 1, N)
        groups = np.unique(self.truth)[:, None] == self.truth  # (groups, N)
        return (units & groups & (self.truth == self.predicted)).sum(-1), (units & groups).sum(-1)


def cross_validated(
    features: np.ndarray, group: np.ndarray, unit: np.ndarray, *, kind: str = "linear", folds: int = 5
) -> ProbeResult:
    """Every token predicted by a probe that saw no token of its unit.

    Args:
        features: (N, C), finite.
        group: (N,), 1 to 10.
        unit: (N,), the slab or patient of each token.
        kind: of probe, see `make_probe`.
        folds: parts that the units are dealt into, about the same number of tokens in each.

    Raises:
        ValueError: for lengths that differ, NaN, an unknown kind, fewer than 2 groups, fewer units than
            folds, and for a group that a test part has and its training part lacks.
    """
    from sklearn.model_selection import GroupKFold

    _check_tokens(features, group, unit)
    if not 2 <= folds <= len(np.unique(unit)):
        raise ValueError(f"{folds} folds need 2 or more, and as many units; there are {len(np.unique(unit))}")
    predicted = np.zeros_like(group)
    for train, test in GroupKFold(folds).split(features, group, unit):
        if missing := set(group[test]) - set(group[train]):
            raise ValueError(
                f"a probe would be asked for {_named(missing)} (units {np.unique(unit[test]).tolist()}) that "
                "it never saw: a group needs tokens in two units or more, in different folds. Use more folds "
                "(up to the number of units), thinner slabs, or leave the group out"
            )
        predicted[test] = fit_probe(features[train], group[train], kind=kind).predict(features[test])
    return ProbeResult(group, predicted, unit)


def tested_on(probe: Any, features: np.ndarray, group: np.ndarray, unit: np.ndarray) -> ProbeResult:
    """A fitted probe on tokens of other patients.

    Args:
        probe: of `fit_probe`, fitted on patients that these tokens do not come from.
        features, group, unit: as for `cross_validated`, but one group is enough.

    Raises:
        ValueError: for lengths that differ, NaN, a probe that is not fitted or was fitted on another number
            of features, and for a group that it never saw.
    """
    _check_tokens(features, group, unit, fewest=1)
    if not hasattr(probe, "classes_"):
        raise ValueError("fit the probe first: fit_probe(features, group)")
    if missing := set(group) - set(probe.classes_):
        raise ValueError(f"the probe never saw {_named(missing)}: leave those tokens out (Tokens.where)")
    return ProbeResult(group, probe.predict(features), unit)


class LinearProbe(nn.Linear):
    """A linear probe as one layer: (..., C) features to a logit for each of `groups` (group numbers)."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, groups: tuple[int, ...]) -> None:
        with torch.random.fork_rng(devices=[]):  # torch draws weights first: not out of the run's numbers
            super().__init__(weight.shape[1], weight.shape[0])
        self.groups = groups
        with torch.no_grad():
            self.weight.copy_(torch.from_numpy(weight))
            self.bias.copy_(torch.from_numpy(bias))
        self.requires_grad_(False)

    def index(self, group: str) -> int:
        """Which logit is this group's.

        Raises:
            ValueError: for a group that the probe was not fitted on.
        """
        known = [GROUPS[number - 1] for number in self.groups]
        if group not in known:
            raise ValueError(f"the probe knows no {group!r}; it knows {', '.join(known)}")
        return known.index(group)


def as_linear(probe: Any) -> LinearProbe:
    """A fitted linear probe as a torch layer that takes raw features: the scaling is folded into it.

    Its logits are the probe's `decision_function`. Where scikit-learn has one number d for two groups, they
    are -d / 2 and d / 2, of the same probabilities. The layer takes no gradient, its input does.

    Raises:
        ValueError: for a probe that is not linear or not fitted.
    """
    scaler, classifier = probe[0], probe[-1]
    if not hasattr(classifier, "coef_"):
        raise ValueError("only a fitted linear probe is a linear layer: fit_probe(features, group)")
    slope, offset = classifier.coef_, classifier.intercept_
    if len(classifier.classes_) == 2:
        slope, offset = np.concatenate([-slope, slope]) / 2, np.concatenate([-offset, offset]) / 2
    weight = slope / scaler.scale_  # (groups, C)
    return LinearProbe(weight, offset - weight @ scaler.mean_, tuple(int(g) for g in classifier.classes_))


def _patches(pixels: np.ndarray, side: int) -> np.ndarray:
    """(..., H, W) to (..., h, w, side ** 2): each patch's pixels, row by row."""
    if pixels.ndim < 2 or side < 1 or pixels.shape[-2] % side or pixels.shape[-1] % side:
        raise ValueError(
            f"slices of shape {pixels.shape} do not divide into patches of {side} x {side}: "
            "crop them first (pvm.crop_to_grid)"
        )
    *rest, height, width = pixels.shape
    split = pixels.reshape(*rest, height // side, side, width // side, side)
    return split.swapaxes(-3, -2).reshape(*rest, height // side, width // side, side * side)


def _check_slices(hu: torch.Tensor, groups: np.ndarray, unit: np.ndarray) -> None:
    if hu.ndim != 3 or hu.shape != groups.shape or unit.shape != hu.shape[:1]:
        raise ValueError(
            "slices (B, H, W), groups of the same shape and one unit for each slice are needed, got "
            f"{tuple(hu.shape)}, {groups.shape} and {unit.shape}"
        )
    if not torch.isfinite(hu).all():
        raise ValueError("the slices hold NaN or infinite values: HU must be finite")


def _chosen(
    labels: TokenLabels, unit: np.ndarray, *, purity: float, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Group (N,) and place (N, 3) of the tokens to take, in the order of slices, rows and columns."""
    usable = (labels.group > 0) & (labels.purity >= purity) & (unit[:, None, None] >= 0)
    place = np.argwhere(usable)
    group = labels.group[usable]
    if not len(group):
        raise ValueError(f"no patch shows one group on {purity:.0%} of its pixels: check labels and units")
    rng = np.random.default_rng(seed)
    bins = np.stack([unit[place[:, 0]], group])
    kept = [
        rng.permutation(np.flatnonzero((bins == one[:, None]).all(0)))[:most]
        for one in np.unique(bins, axis=1).T
    ]
    order = np.sort(np.concatenate(kept))
    return group[order], place[order]


@torch.inference_mode()
def _maps(pvm: PVM, hu: torch.Tensor, cache: FeatureCache | None) -> list[torch.Tensor]:
    """The maps of one slice (H, W), each (1, C, h, w)."""
    batch = hu.float()[None, None]
    return pvm(batch) if cache is None else cache.maps(pvm, batch)


def _on_grid(features: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(B, C, h, w) to a token grid, float32."""
    if features.shape[2:] == shape:
        return features.float()
    finer = features.shape[2] >= shape[0] and features.shape[3] >= shape[1]
    how: dict[str, Any] = {"mode": "area"} if finer else {"mode": "bilinear", "align_corners": False}
    return F.interpolate(features.float(), shape, **how)


def _check_tokens(features: np.ndarray, group: np.ndarray, unit: np.ndarray, *, fewest: int = 2) -> None:
    if features.ndim != 2 or not len(features) == len(group) == len(unit):
        raise ValueError(
            "features (N, C), N groups and N units are needed, got "
            f"{features.shape}, {group.shape} and {unit.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("the features hold NaN or infinite values")
    if len(there := np.unique(group)) < fewest:
        raise ValueError(f"a probe tells groups apart: {fewest} or more are needed, there are {len(there)}")
    if there.min() < 1 or there.max() > len(GROUPS):
        raise ValueError(f"groups of tokens are numbers from 1 to {len(GROUPS)}, got {there}")


def _named(groups: set[Any]) -> str:
    return ", ".join(GROUPS[int(number) - 1] for number in sorted(groups))
