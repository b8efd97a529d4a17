"""Chapter 02's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import numpy as np
import pytest
import torch
from planted import planted

from alden_lite.lessons import exercises
from alden_lite.lessons.chapters.chapter_02 import noise_at_dose
from alden_lite.physics.noise import theory_sigma
from alden_lite.physics.scanner import Scanner, line_variance

# 02.1


def forgets_the_electronics(sigma_hu, dose, photons, electronic):
    return sigma_hu / dose**0.5


def forgets_the_photon_noises_root(sigma_hu, dose, photons, electronic):
    return sigma_hu * variance_of_a_line(dose * photons, electronic) / variance_of_a_line(photons, electronic)


def lets_the_electronics_shrink_with_the_dose(sigma_hu, dose, photons, electronic):
    low = 1 / (dose * photons) + electronic**2 / photons**2
    return sigma_hu * (low / variance_of_a_line(photons, electronic)) ** 0.5


def divides_by_photons_once(sigma_hu, dose, photons, electronic):
    low, full = (1 / n + electronic**2 / n for n in (dose * photons, photons))
    return sigma_hu * (low / full) ** 0.5


def turns_the_fraction_round(sigma_hu, dose, photons, electronic):
    full, low = (variance_of_a_line(n, electronic) for n in (photons, dose * photons))
    return sigma_hu * (full / low) ** 0.5


def forgets_the_scans_own_noise(sigma_hu, dose, photons, electronic):
    return variance_of_a_line(dose * photons, electronic) ** 0.5


# 02.2


def variance_of_a_line(n, electronic):
    return 1 / n + electronic**2 / n**2


def takes_the_area_below_the_curve(power, frequency):
    return np.trapezoid(power, frequency)


def forgets_2_pi(power, frequency):
    return np.trapezoid(frequency * power, frequency)


def forgets_the_rings_radius(power, frequency):
    return np.trapezoid(2 * np.pi * power, frequency)


def returns_the_deviation(power, frequency):
    return np.sqrt(np.trapezoid(2 * np.pi * frequency * power, frequency))


def forgets_the_step(power, frequency):
    return np.sum(2 * np.pi * frequency * power)


def takes_the_mean(power, frequency):
    return np.mean(2 * np.pi * frequency * power)


def returns_the_integrand(power, frequency):
    return 2 * np.pi * frequency * power


# 02.3


def scales_the_counts(counts, dose, rng):
    return dose * counts


def scales_and_rounds(counts, dose, rng):
    return np.round(dose * counts)


def draws_poisson_again(counts, dose, rng):
    return rng.poisson(dose * counts)


def draws_a_new_scan(counts, dose, rng):
    return rng.poisson(dose * counts.mean(), counts.shape)


def keeps_what_should_go(counts, dose, rng):
    return rng.binomial(counts, 1 - dose)


def tosses_one_coin_a_ray(counts, dose, rng):
    return counts * (rng.random(counts.shape) < dose)


MISTAKES = {
    "02.1": {
        forgets_the_electronics: "electronic noise counts when photons are few",
        forgets_the_photon_noises_root: "a quarter of the dose doubles it",
        lets_the_electronics_shrink_with_the_dose: "electronic noise counts when photons are few",
        divides_by_photons_once: "electronic noise counts when photons are few",
        turns_the_fraction_round: "a quarter of the dose doubles it",
        forgets_the_scans_own_noise: "full dose changes nothing",
    },
    "02.2": {
        takes_the_area_below_the_curve: "a ring at f is 2 pi f long",
        forgets_2_pi: "is the 2 pi of the ring's length there?",
        forgets_the_rings_radius: "is the frequency f of the ring's length there?",
        returns_the_deviation: "is a root taken?",
        forgets_the_step: "is each ring as wide as two frequencies are apart?",
        takes_the_mean: "is this a mean over the frequencies?",
        returns_the_integrand: "expected one number, yours gives an array of shape (2001,)",
    },
    "02.3": {
        scales_the_counts: "half a photon is none",
        scales_and_rounds: "what is left is Poisson again",
        draws_poisson_again: "dose 1 keeps every photon",
        draws_a_new_scan: "dose 1 keeps every photon",
        keeps_what_should_go: "dose 1 keeps every photon",
        tosses_one_coin_a_ray: "what is left is Poisson again",
    },
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_photons_may_be_tossed_and_rings_summed_in_other_ways():
    def tosses_every_photon(counts, dose, rng):
        left = np.zeros(counts.size, int)
        for ray, photons in enumerate(counts.ravel()):
            left[ray] = np.count_nonzero(rng.random(photons) < dose)
        return left.reshape(counts.shape)

    def adds_rings_up(power, frequency):
        return torch.as_tensor(2 * np.pi * frequency * power).sum() * (frequency[1] - frequency[0])

    assert exercises.judge("02.3", tosses_every_photon).status == "right"
    assert exercises.judge("02.2", adds_rings_up).status == "right"


def test_the_expected_noise_of_the_exercise_is_the_scanners():
    scanner = Scanner.covering(256, 1.4, electronic_noise=5.0)
    low, full = (theory_sigma(scanner, line_variance(n, 5.0)) for n in (60.0, 600.0))
    assert noise_at_dose(full, 0.1, 600.0, 5.0) == pytest.approx(low)
