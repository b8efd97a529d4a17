"""Who takes part in the comparison, and on what terms."""

import numpy as np
import pytest
import torch

from alden_lite.alden.denoising import denoise
from alden_lite.alden.training import Recipe
from alden_lite.evaluation.studies.ablations import BASE
from alden_lite.evaluation.studies.methods import (
    BLEND,
    FAMILIES,
    METHODS,
    plan_of,
    starts_from_blend,
    untrained_generator,
)
from alden_lite.neighbours.filters import FILTERS
from alden_lite.neighbours.wgan import WassersteinPlan


def test_every_method_belongs_to_a_family_and_says_what_it_is() -> None:
    assert {method.family for method in METHODS.values()} == set(FAMILIES)
    assert all(method.about for method in METHODS.values())
    assert set(FILTERS) == {name for name, method in METHODS.items() if method.family == "filter"}


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.training])
def test_methods_of_a_family_have_the_same_first_weights_and_crops(name: str) -> None:
    method, plan = METHODS[name], plan_of(name, {}, seed=3)
    assert plan.seed == 3
    for field in ("crop", "batch", "bank", "reuse", "precision", "average", "clip"):
        assert getattr(plan, field) == getattr(BASE, field), field
    assert plan.warm_start == ("l1" if method.family == "loss" else None)
    assert plan.generator == {"redcnn": "redcnn", "esau": "esau"}.get(name, "unet")
    assert method.training is not None and type(plan) is method.training.plan_class


def test_who_starts_from_the_blend_is_said() -> None:
    trained = {name for name, method in METHODS.items() if method.training}
    assert {name for name in trained if starts_from_blend(name)} == {"gan", "alden"}
    assert starts_from_blend("dugan", {"dual_weight": 0.1, "keep": BLEND, "warm_keep": BLEND})
    assert plan_of("alden", {}).warm_keep == BLEND
    with pytest.raises(ValueError, match="nlm is not trained"):
        starts_from_blend("nlm")


def test_only_alden_and_the_plain_gan_have_losses_of_alden() -> None:
    recipes = {name: m.plan for name, m in METHODS.items() if isinstance(m.plan, Recipe)}
    assert {name for name, recipe in recipes.items() if recipe.adversarial} == {"gan", "alden"}
    assert {name for name, recipe in recipes.items() if recipe.contrastive} == {"alden"}
    assert not recipes["gan"].anatomy and recipes["alden"].anatomy


def test_settings_are_fields_of_the_methods_own_plan() -> None:
    plan = plan_of("wgan_dino", {"perceptual_weight": 3.0, "learning_rate": 7e-5})
    assert isinstance(plan, WassersteinPlan)
    assert (plan.learning_rate, plan.perceptual_weight) == (7e-5, 3.0)
    with pytest.raises(ValueError, match="l1's plan has no field perceptual_weight"):
        plan_of("l1", {"perceptual_weight": 3.0})


def test_what_is_no_shipped_generator_is_said() -> None:
    with pytest.raises(ValueError, match="ldct is no generator"):
        untrained_generator("ldct")


def test_the_blend_is_15_percent_input_and_the_rest_l1() -> None:
    low = torch.from_numpy(np.random.default_rng(0).normal(50, 20, (48, 48))).float()
    blend = denoise(low, untrained_generator("blend"), progress=False)
    expected = 0.15 * low + 0.85 * denoise(low, "l1", progress=False)
    torch.testing.assert_close(blend, expected, atol=1e-2, rtol=0)
    shipped = denoise(low, untrained_generator("l1_shipped"), progress=False)
    torch.testing.assert_close(shipped, denoise(low, "l1", progress=False))
