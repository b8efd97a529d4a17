"""HU, attenuation, windows and the networks' scale."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alden_lite.physics.hounsfield import WINDOWS, Window, denormalise, hu_to_mu, mu_to_hu, normalise, window


def test_water_and_air_have_their_attenuation() -> None:
    assert hu_to_mu(0.0) == pytest.approx(0.0192)
    assert hu_to_mu(-1000.0) == pytest.approx(0.0)
    assert mu_to_hu(0.0384) == pytest.approx(1000.0)


@given(st.integers(-32768, 32767))
def test_normalising_and_back_is_exact_for_every_stored_value(hu: int) -> None:
    values = torch.tensor([float(hu)], dtype=torch.float32)
    assert torch.equal(denormalise(normalise(values)), values)


@given(st.floats(-1000, 3000))
def test_attenuation_and_back_is_the_same_hu(hu: float) -> None:
    assert mu_to_hu(hu_to_mu(hu)) == pytest.approx(hu, abs=1e-9)


def test_a_window_is_black_grey_white_at_its_ends_and_level() -> None:
    hu = np.array([-1000.0, -160.0, 40.0, 240.0, 3000.0])
    np.testing.assert_allclose(window(hu, 40, 400), [0, 0, 0.5, 1, 1])


def test_numpy_and_torch_show_the_same_window() -> None:
    hu = np.random.default_rng(0).uniform(-1024, 3072, (7, 9)).astype(np.float32)
    shown = window(torch.from_numpy(hu), -600, 1500)
    np.testing.assert_allclose(shown.numpy(), window(hu, -600, 1500), atol=1e-6)


def test_the_evaluation_window_is_the_papers_range() -> None:
    assert (WINDOWS["evaluation"].low, WINDOWS["evaluation"].high) == (-160, 240)
    assert str(WINDOWS["lung"]) == "L -600 W 1500 HU"


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_a_window_without_width_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="width above 0"):
        window(np.zeros(3), 40, width)
    with pytest.raises(ValueError, match="width above 0"):
        Window(40, width)
