"""The segmenter's training: what it learns from, its loss, and its command."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alden_lite.data.organs import GROUPS, sample_groups
from alden_lite.data.sample import load_sample, split_slices
from alden_lite.engine.checkpoint import read_card, weights_path
from alden_lite.evaluation import segmenter_training as segmenter_module
from alden_lite.evaluation.organs import dice
from alden_lite.evaluation.segmenter import Segmenter, load_segmenter, segment
from alden_lite.evaluation.segmenter_training import (
    FIRST_TRAINING_PATIENT,
    SegmenterRecipe,
    TrainingSlices,
    _patient,
    draw_batch,
    group_weights,
    main,
    segmentation_loss,
    train_segmenter,
    training_slices,
)
from alden_lite.phantom import EXTENT_MM, Patient
from alden_lite.phantom import patient as patient_module
from alden_lite.physics import scanner as scanner_module

LIVER, BONE = 1 + GROUPS.index("liver"), 1 + GROUPS.index("bone")
TINY = SegmenterRecipe(steps=40, batch=4, crop=64, precision="float32", real_share=1, learning_rate=1e-2)


def discs(count: int, *, seed: int = 0, size: int = 64) -> TrainingSlices:
    """Slices of air with a bright disc (bone) and a grey one (liver) at random places, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    groups = np.zeros((count, size, size), np.uint8)
    for one in groups:
        for group in (LIVER, BONE):
            cy, cx = rng.uniform(14, size - 14, 2)
            one[np.hypot(y - cy, x - cx) < 10] = group
    hu = np.choose(np.select([groups == LIVER, groups == BONE], [1, 2]), [-1000, 60, 700])
    return TrainingSlices(
        (hu + rng.normal(0, 10, hu.shape)).astype(np.int16), groups, np.ones(count, dtype=bool)
    )


# The loss


def test_the_loss_is_cross_entropy_and_dice_of_the_groups_that_are_there() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 2, (2, 11, 3, 4))
    groups = rng.choice([0, 2, 7], (2, 6, 8))
    probability = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    entropy, both, either = 0.0, np.zeros(11), np.zeros(11)
    for b, y, x in np.ndindex(2, 3, 4):  # pixel by pixel
        share = np.bincount(groups[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel(), minlength=11) / 4
        entropy -= (share * np.log(probability[b, :, y, x])).sum() / 24
        both += share * probability[b, :, y, x]
        either += share + probability[b, :, y, x]
    overlap = np.mean([2 * both[g] / either[g] for g in (2, 7)])
    for weight in (0.0, 1.0, 0.3):
        loss = segmentation_loss(torch.from_numpy(scores), torch.from_numpy(groups), dice_weight=weight)
        assert loss.item() == pytest.approx(entropy + weight * (1 - overlap), rel=1e-6)


def test_groups_have_weights_in_the_cross_entropy() -> None:
    groups = torch.zeros(1, 4, 4, dtype=torch.long)
    groups[:, :, 2:] = LIVER  # half of the pixels each, all scores alike
    weights = torch.ones(11)
    weights[LIVER] = 3
    loss = segmentation_loss(torch.zeros(1, 11, 2, 2), groups, weights=weights, dice_weight=0)
    assert loss.item() == pytest.approx(math.log(11) * (1 + 3) / 2)


def test_a_group_four_times_as_rare_weighs_twice_as_much() -> None:
    groups = np.zeros((1, 10, 10), np.uint8)
    groups[0, :, 8:] = LIVER  # 80 and 20 pixels
    weights = group_weights(TrainingSlices(np.zeros_like(groups, np.int16), groups, np.array([True])))
    assert weights[LIVER] == pytest.approx(2 * weights[0].item())
    assert 0.8 * weights[0] + 0.2 * weights[LIVER] == pytest.approx(1)
    assert weights[BONE] == 0


def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much() -> None:
    groups = torch.zeros(1, 8, 8, dtype=torch.long)
    groups[:, :4] = LIVER
    right = torch.full((1, 11, 4, 4), -50.0)
    right[:, LIVER, :2] = right[:, 0, 2:] = 50
    assert segmentation_loss(right, groups).item() == pytest.approx(0, abs=1e-5)
    assert segmentation_loss(right.flip(2), groups).item() > 50


def test_slices_without_any_group_have_a_loss_too() -> None:
    loss = segmentation_loss(torch.zeros(1, 11, 4, 4), torch.zeros(1, 8, 8, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(11))


# What it learns from


def striped(*, real: bool = True, size: int = 64) -> TrainingSlices:
    """One slice whose HU tell place and group: HU = 10 row + column, groups by column."""
    rows, columns = np.mgrid[:size, :size]
    groups = (columns // 8 % 11).astype(np.uint8)
    return TrainingSlices((10 * rows + columns)[None].astype(np.int16), groups[None], np.array([real]))


def test_a_crop_is_cut_alike_from_slice_and_groups_and_holds_no_made_up_hu() -> None:
    recipe = replace(TINY, offset_hu=0.0, crop=48, batch=20)
    hu, groups = draw_batch(striped(), recipe, np.random.default_rng(0))
    assert hu.shape == (20, 1, 48, 48) and groups.shape == (20, 48, 48)
    source = striped()
    known = {(int(h), int(g)) for h, g in zip(source.hu.ravel(), source.groups.ravel(), strict=True)}
    pairs = {(int(h), int(g)) for h, g in zip(hu.flatten(), groups.flatten(), strict=True)}
    assert pairs <= known | {(-1024, 0)}
    assert (-1024, 0) in pairs  # some crops reach beyond the slice


def test_crops_are_shifted_and_scaled_but_never_turned_or_mirrored() -> None:
    recipe = replace(TINY, offset_hu=0.0, crop=32, batch=200, scale=(0.5, 1.25))
    hu, _ = draw_batch(striped(size=128), recipe, np.random.default_rng(0))
    inside = hu[(hu > -1024).all(-1).all(-1)[:, 0], 0]
    down, right = inside[:, -1, 0] - inside[:, 0, 0], inside[:, 0, -1] - inside[:, 0, 0]
    scales = right.numpy() / 31
    assert scales.min() == pytest.approx(0.5, abs=0.05) and scales.max() == pytest.approx(1.25, abs=0.05)
    np.testing.assert_allclose(down.numpy(), 10 * right.numpy(), atol=10)  # one scale for both axes
    starts = inside[:, 0, 0].unique()
    assert len(starts) > 50


def test_an_offset_is_one_number_a_slice_within_its_bounds() -> None:
    flat = TrainingSlices(np.zeros((1, 64, 64), np.int16), np.zeros((1, 64, 64), np.uint8), np.array([True]))
    recipe = replace(TINY, offset_hu=15.0, crop=16, batch=200, scale=(1, 1))
    hu, _ = draw_batch(flat, recipe, np.random.default_rng(0))
    middle = hu[:, 0, 4:12, 4:12].flatten(1)  # crops reach beyond the slice by 4 pixels at most
    assert (middle == middle[:, :1]).all()
    assert -15 <= middle.min() < -10 and 10 < middle.max() <= 15


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1, 1), (0.0, 0, 0), (0.5, 0.4, 0.6)])
def test_a_batch_has_its_share_of_patients(share: float, low: float, high: float) -> None:
    hu = np.stack([np.full((16, 16), 100), *np.full((9, 16, 16), -100)]).astype(np.int16)
    slices = TrainingSlices(hu, np.zeros((10, 16, 16), np.uint8), np.arange(10) == 0)
    recipe = replace(TINY, crop=8, batch=400, real_share=share, scale=(1, 1))
    drawn, _ = draw_batch(slices, recipe, np.random.default_rng(0))
    assert low <= (drawn[:, 0, 4, 4] > 0).float().mean() <= high


def test_it_learns_from_training_slabs_and_phantoms_that_no_test_uses(tmp_path: Path) -> None:
    slices = training_slices(1, cache=tmp_path, progress=False)
    volume, z = load_sample(), split_slices("train")
    assert volume.labels is not None
    assert slices.real.sum() == len(z) and slices.real[: len(z)].all() and len(slices) == len(z) + 5
    np.testing.assert_array_equal(slices.hu[: len(z)], volume.hu[z])
    np.testing.assert_array_equal(slices.groups[: len(z)], sample_groups(volume.labels[z]))
    assert not set(z) & set(split_slices("test"))
    (file,) = tmp_path.glob("*")
    assert str(FIRST_TRAINING_PATIENT) in file.name and FIRST_TRAINING_PATIENT >= 1000
    drawn = slices.hu[~slices.real]
    assert len(np.unique(drawn.reshape(5, -1).mean(1))) == 5  # no slice twice
    flat = drawn[0][slices.groups[~slices.real][0] == 1 + GROUPS.index("muscle")]
    assert flat.std() > 10  # HU: normal-dose noise, which the phantom itself does not have
    again = training_slices(1, cache=tmp_path, progress=False)  # read from disk
    np.testing.assert_array_equal(again.hu, slices.hu)
    np.testing.assert_array_equal(again.groups, slices.groups)


def test_cached_phantoms_are_made_anew_when_what_makes_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, str, int]] = []

    def scan(*slice_: Any) -> tuple[np.ndarray, np.ndarray]:
        made.append(slice_)
        return np.full((2, 2), len(made)), np.zeros((2, 2))

    monkeypatch.setattr(segmenter_module, "_scan", scan)

    def is_made(seed: int = 1000) -> bool:
        count = len(made)
        _patient(seed, tmp_path)
        return len(made) > count

    assert is_made() and not is_made()
    assert is_made(1001) and not is_made(1000)
    dimmer = {**scanner_module.PRESETS["chest"], "photons": 2.9e5}
    low, high = EXTENT_MM["pelvis"]
    fatter = replace(Patient.draw(1000), fat_mm=50.0)
    for place, name, value in (
        (segmenter_module, "SCANS_VERSION", segmenter_module.SCANS_VERSION + 1),
        (segmenter_module, "HEIGHTS", {"chest": 1, "abdomen": 3, "pelvis": 1}),
        (segmenter_module, "EXTENT_MM", {**EXTENT_MM, "pelvis": (low, high - 1)}),
        (scanner_module, "PRESETS", {**scanner_module.PRESETS, "chest": dimmer}),
        (patient_module, "TISSUE_HU", {**patient_module.TISSUE_HU, "liver": (0.0, 1.0, 2.0, 3.0)}),
        (Patient, "draw", lambda seed: fatter),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(place, name, value)
            assert is_made(), name
        assert not is_made(), name


@pytest.mark.parametrize(
    ("hu", "groups", "real", "said"),
    [
        ((2, 8, 8), (2, 8, 7), 2, r"\(2, 8, 7\)"),
        ((2, 8, 8), (2, 8, 8), 3, r"\(3,\)"),
        ((8, 8), (8, 8), 8, r"\(8, 8\)"),
    ],
)
def test_slices_must_fit_their_groups(hu: Any, groups: Any, real: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainingSlices(np.zeros(hu, np.int16), np.zeros(groups, np.uint8), np.ones(real, dtype=bool))


def test_a_group_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 10, got 11"):
        TrainingSlices(
            np.zeros((1, 8, 8), np.int16), np.full((1, 8, 8), 11, np.uint8), np.ones(1, dtype=bool)
        )


# Training


@pytest.fixture(scope="module")
def trained() -> Segmenter:
    return train_segmenter(discs(12), TINY, progress=False)


def test_it_learns_to_find_what_it_was_shown(trained: Segmenter) -> None:
    other = discs(4, seed=1)
    overlap = dice(segment(other.hu, trained), other.groups)
    assert overlap["liver"] > 0.8 and overlap["bone"] > 0.8


def test_a_trained_segmenter_is_frozen(trained: Segmenter) -> None:
    assert not trained.training
    assert not any(weight.requires_grad for weight in trained.parameters())


@pytest.mark.parametrize("training", ["all", "one part"])
def test_a_segmenter_in_training_mode_answers_as_in_eval_mode(trained: Segmenter, training: str) -> None:
    network = copy.deepcopy(trained)
    (network if training == "all" else network.enter[2]).train()
    hu = discs(3, seed=2).hu
    np.testing.assert_array_equal(segment(hu, network), segment(hu, trained))


def test_the_same_seed_trains_the_same_segmenter_and_touches_no_other_randomness() -> None:
    def first_weight(seed: int, *, steps: int = 2) -> torch.Tensor:
        recipe = replace(TINY, steps=steps, seed=seed)
        return next(train_segmenter(discs(2), recipe, progress=False).parameters())

    state = torch.get_rng_state()
    one = first_weight(0)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(one, first_weight(0))
    assert not torch.equal(one, first_weight(1))
    assert not torch.equal(first_weight(0, steps=0), first_weight(1, steps=0))


def test_bfloat16_trains_too() -> None:
    recipe = replace(TINY, steps=3, precision="bfloat16")
    network = train_segmenter(discs(2), recipe, progress=False)
    assert all(torch.isfinite(weight).all() for weight in network.parameters())


def test_training_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="no slices"):
        train_segmenter(discs(0), TINY)
    with pytest.raises(ValueError, match="float16"):
        train_segmenter(discs(1), replace(TINY, precision="float16"))


# The command


def test_the_makefile_makes_what_is_shipped() -> None:
    card = read_card(weights_path("segmenter"))
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert re.search(
        r"^\t\$\(PY\) -m alden_lite\.evaluation\.segmenter_training --out runs/\S+\.safetensors$",
        makefile,
        re.MULTILINE,
    )
    defaults = {key: list(v) if isinstance(v, tuple) else v for key, v in vars(SegmenterRecipe()).items()}
    assert card["recipe"] == defaults


def test_the_command_writes_weights_with_their_story(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    assert main(["--out", str(file), "--patients", "0", "--steps", "1", "--seed", "3"]) == 0
    card = read_card(file)
    assert card["recipe"]["steps"] == 1 and card["recipe"]["seed"] == 3
    assert card["data"]["phantoms"].endswith("0 slices")
    assert segment(np.zeros((32, 32)), load_segmenter(file)).shape == (32, 32)


def test_the_command_wants_a_safetensors_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", "weights.pt"])
    assert "must end in .safetensors" in capsys.readouterr().err


# TotalSegmentator, which is not here: a stand-in shows what it is given, and what becomes of its answer
