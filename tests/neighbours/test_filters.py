"""Filters that learned nothing: told the noise, they take it away, and little else."""

import math

import numpy as np
import pytest
from scipy import ndimage

from alden_lite.neighbours.filters import FILTERS, Noise, measure_noise, nlm, tv

PIXEL_MM = 0.5
SIDE = 96


def noise(sigma: float, *, blur: float = 0.0, seed: int = 0) -> np.ndarray:
    """(96, 96) HU of noise with this spread; blurred noise is coarse."""
    values = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE))
    if blur:
        values = ndimage.gaussian_filter(values, blur, mode="wrap")
    return sigma * values / values.std()


def liver() -> np.ndarray:
    """60 HU with a darker, sharp-edged square of 0 HU in the middle."""
    hu = np.full((SIDE, SIDE), 60.0)
    hu[32:64, 32:64] = 0.0
    return hu


def white(sigma: float) -> Noise:
    """White noise: all its power sigma² dx dy at every frequency."""
    return Noise(sigma, np.array([0.1, 0.9]), np.full(2, sigma**2 * PIXEL_MM**2))


def test_noise_is_measured_from_the_difference_of_the_pair_not_from_the_anatomy() -> None:
    found = measure_noise(liver() + noise(12), liver(), pixel_mm=PIXEL_MM)
    assert found.sigma_hu == pytest.approx(12, rel=0.01)
    # White noise has sigma² dx dy at all frequencies; the lowest lacks what each square's mean takes off.
    assert found.power[2:] == pytest.approx(12**2 * PIXEL_MM**2, rel=0.2)
    assert found.frequency_per_mm.max() <= 1 / (2 * PIXEL_MM)


def test_coarse_noise_has_its_power_at_low_frequencies() -> None:
    found = measure_noise(liver() + noise(12, blur=2), liver(), pixel_mm=PIXEL_MM)
    assert found.power[1] > 50 * found.power[-1]


def test_noise_is_measured_inside_the_body_only() -> None:
    body = np.full((SIDE, SIDE), -1000.0)
    body[8:88, 8:88] = 60
    body[40:56, 40:56] = -900  # a lung: enclosed, so it belongs to the body
    quiet_outside = noise(12) * (body > -1000)
    found = measure_noise(body + quiet_outside, body, pixel_mm=PIXEL_MM)
    assert found.sigma_hu == pytest.approx(12, rel=0.05)


def test_the_plane_of_a_spectrum_is_the_variance_of_each_coefficient() -> None:
    plane = white(7).plane((SIDE, 64), pixel_mm=PIXEL_MM)
    assert plane.shape == (SIDE, 64)
    # White noise of sigma has coefficients of variance sigma² N.
    assert plane == pytest.approx(49 * SIDE * 64)
    two = Noise(1.0, np.array([0.0, 1.0]), np.array([4.0, 0.0]))
    falling = two.plane((4, 8), pixel_mm=1.0)  # power falls to 0 at 1/mm: half is left at 0.5/mm
    assert falling[0, 0] == pytest.approx(4 * 32) and falling[0, 4] == pytest.approx(2 * 32)
    assert falling[2, 4] == pytest.approx(4 * (1 - math.hypot(0.5, 0.5)) * 32)


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_takes_noise_away_and_leaves_edges(name: str) -> None:
    if name == "bm3d":
        pytest.importorskip("bm3d", exc_type=ImportError)
    low = liver() + noise(15)
    smooth = FILTERS[name](low, measure_noise(low, liver(), pixel_mm=PIXEL_MM), pixel_mm=PIXEL_MM)
    assert smooth.dtype == np.float32 and smooth.shape == low.shape
    assert np.sqrt(((smooth - liver()) ** 2).mean()) < 7.5
    step = smooth[40:56, 34:40].mean() - smooth[40:56, 24:30].mean()
    assert step == pytest.approx(-60, abs=8)


@pytest.mark.parametrize("name", FILTERS)
def test_a_stronger_filter_leaves_less_noise(name: str) -> None:
    if name == "bm3d":
        pytest.importorskip("bm3d", exc_type=ImportError)
    low = 60 + noise(15)
    told = white(15)
    weak, strong = (FILTERS[name](low, told, pixel_mm=PIXEL_MM, strength=s).std() for s in (0.4, 1.2))
    assert strong < 0.8 * weak < 0.8 * 15


def test_bm3d_believes_the_spectrum_it_is_given() -> None:
    pytest.importorskip("bm3d", exc_type=ImportError)
    low = 60 + noise(15, blur=1.5)
    measured = measure_noise(low, np.full_like(low, 60.0), pixel_mm=PIXEL_MM)
    right, wrong = (FILTERS["bm3d"](low, told, pixel_mm=PIXEL_MM).std() for told in (measured, white(15)))
    assert right < 0.7 * wrong


def test_non_local_means_is_the_weighted_mean_of_its_formula() -> None:
    low = 60 + noise(10)[:32, :32]
    found = nlm(low, white(10), pixel_mm=PIXEL_MM, strength=0.8)
    padded = np.pad(low, 8, mode="reflect")
    y = x = 16  # in the middle
    own = padded[y + 6 : y + 11, x + 6 : x + 11]
    total = weights = 0.0
    for dy in range(-6, 7):
        for dx in range(-6, 7):
            other = padded[y + dy + 6 : y + dy + 11, x + dx + 6 : x + dx + 11]
            distance = max(((own - other) ** 2).mean() - 2 * 10**2, 0.0)
            weight = math.exp(-distance / (0.8 * 10) ** 2)
            total += weight * low[y + dy, x + dx]
            weights += weight
    assert found[y, x] == pytest.approx(total / weights, abs=0.5)


def test_total_variation_is_least_where_it_says() -> None:
    low = liver() + noise(10)
    told = white(10)
    smooth = tv(low, told, pixel_mm=PIXEL_MM, strength=0.7).astype(float)

    def cost(u: np.ndarray) -> float:
        dy, dx = np.diff(u, axis=0, append=u[-1:]), np.diff(u, axis=1, append=u[:, -1:])
        return float(((u - low) ** 2).sum() / 2 / (0.7 * 10) + np.hypot(dy, dx).sum())

    others = (low, 0.9 * smooth + 0.1 * low, tv(low, told, pixel_mm=PIXEL_MM, strength=1.4))
    assert all(cost(smooth) < cost(np.asarray(other, dtype=float)) for other in others)


@pytest.mark.parametrize("strength", [0, -1, math.nan])
@pytest.mark.parametrize("name", FILTERS)
def test_a_strength_must_be_above_0(name: str, strength: float) -> None:
    if name == "bm3d":
        pytest.importorskip("bm3d", exc_type=ImportError)
    with pytest.raises(ValueError, match="strength must be above 0"):
        FILTERS[name](liver(), white(10), pixel_mm=PIXEL_MM, strength=strength)


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(ValueError, match="slices of one shape"):
        measure_noise(liver(), liver()[:50], pixel_mm=PIXEL_MM)
    with pytest.raises(ValueError, match="NaN"):
        measure_noise(np.where(liver() > 50, np.nan, 0.0), liver(), pixel_mm=PIXEL_MM)
    with pytest.raises(ValueError, match="no noise to measure"):
        measure_noise(liver(), liver(), pixel_mm=PIXEL_MM)
    air = np.full((SIDE, SIDE), -1000.0)
    with pytest.raises(ValueError, match="no body"):
        measure_noise(air + noise(5), air, pixel_mm=PIXEL_MM)


def test_bm3d_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm3d", None)
    with pytest.raises(ImportError, match="pip install"):
        FILTERS["bm3d"](liver(), white(10), pixel_mm=PIXEL_MM)


@pytest.mark.parametrize("name", ["bm3d", "tv"])
def test_strength_multiplies_the_noises_standard_deviation(name: str) -> None:
    if name == "bm3d":
        pytest.importorskip("bm3d", exc_type=ImportError)
    low = (liver() + noise(15))[:64, :64]
    strong = FILTERS[name](low, white(10), pixel_mm=PIXEL_MM, strength=1.5)
    told = FILTERS[name](low, white(15), pixel_mm=PIXEL_MM)
    np.testing.assert_allclose(strong, told, atol=1e-3)
