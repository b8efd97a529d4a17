"""Exercises, hints, records and settings; and for each check, the mistakes it must find."""

import linecache
import math
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from alden_lite import lessons
from alden_lite.data.dicom import stack
from alden_lite.lessons import exercises, records
from alden_lite.lessons.chapters import chapter_03, chapter_06, chapter_07, chapter_09, chapter_10
from alden_lite.lessons.settings import SETTINGS, Settings

IDS = exercises.known()


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def clip(image):
    return np.clip(image, -160, 240)


# Plausible mistakes, with the property that must find each


def forgets_the_root(a, b):
    return np.mean((clip(a) - clip(b)) ** 2)


def forgets_to_clip(a, b):
    return np.sqrt(np.mean((a - b) ** 2))


def clips_the_difference(a, b):
    return np.sqrt(np.mean(clip(a - b) ** 2))


def clips_only_one(a, b):
    return np.sqrt(np.mean((clip(a) - b) ** 2))


def takes_the_mean_of_absolutes(a, b):
    return np.mean(np.abs(clip(a) - clip(b)))


def takes_the_root_before_the_mean(a, b):
    return np.mean(clip(a) - clip(b))


def returns_window_units(a, b):
    return np.sqrt(np.mean(((clip(a) - clip(b)) / 400) ** 2))


def returns_an_image(a, b):
    return np.sqrt((clip(a) - clip(b)) ** 2)


def returns_the_total(own, dose):
    return own / dose**0.5


def subtracts_the_deviations(own, dose):
    return own / dose**0.5 - own


def forgets_the_noises_root(own, dose):
    return own * (1 / dose - 1)


def returns_the_variance(own, dose):
    return own**2 * (1 / dose - 1)


def takes_what_is_missing_of_the_dose(own, dose):
    return own * (1 - dose) ** 0.5


def takes_a_dose_in_percent(own, dose):
    return own * (100 / dose - 1) ** 0.5


def always_subtracts_1024(stored, slope, intercept):
    return stored * slope - 1024


def forgets_the_intercept(stored, slope, intercept):
    return stored * slope


def forgets_the_slope(stored, slope, intercept):
    return stored + intercept


def adds_the_intercept_first(stored, slope, intercept):
    return (stored + intercept) * slope


def subtracts_the_intercept(stored, slope, intercept):
    return stored * slope - intercept


def reads_all_as_signed(stored, slope, intercept):
    return stored.astype(np.int16) * slope + intercept


def stores_the_result_unsigned(stored, slope, intercept):
    return (stored * slope + intercept).astype(np.int64).astype(stored.dtype)


def flattens(stored, slope, intercept):
    return np.array([value * slope + intercept for value in stored.ravel()])


def never_clips(hu, level, width):
    return (hu - level) / width + 0.5


def clips_below_only(hu, level, width):
    return np.maximum((hu - level) / width + 0.5, 0)


def takes_the_level_for_black(hu, level, width):
    return np.clip((hu - level) / width, 0, 1)


def takes_the_width_to_both_sides(hu, level, width):
    return np.clip((hu - level) / (2 * width) + 0.5, 0, 1)


def returns_greys_of_8_bits(hu, level, width):
    return 255 * np.clip((hu - level) / width + 0.5, 0, 1)


def turns_black_and_white_round(hu, level, width):
    return np.clip(0.5 - (hu - level) / width, 0, 1)


def swaps_level_and_width(hu, level, width):
    return np.clip((hu - width) / level + 0.5, 0, 1)


def has_only_black_and_white(hu, level, width):
    return np.where(hu > level, 1.0, np.where(hu < level, 0.0, 0.5))


def clips_the_hu_only(hu, level, width):
    return np.clip(hu, level - width / 2, level + width / 2)


def lets_the_width_be_negative(a_hu, b_hu, contrast):
    return (a_hu + b_hu) / 2, (b_hu - a_hu) / contrast


def multiplies_by_the_contrast(a_hu, b_hu, contrast):
    return (a_hu + b_hu) / 2, abs(a_hu - b_hu) * contrast


def forgets_the_contrast(a_hu, b_hu, contrast):
    return (a_hu + b_hu) / 2, abs(a_hu - b_hu)


def puts_the_level_on_a_tissue(a_hu, b_hu, contrast):
    return a_hu, abs(a_hu - b_hu) / contrast


def takes_half_the_distance_for_the_level(a_hu, b_hu, contrast):
    return abs(a_hu - b_hu) / 2, abs(a_hu - b_hu) / contrast


def returns_the_width_first(a_hu, b_hu, contrast):
    return abs(a_hu - b_hu) / contrast, (a_hu + b_hu) / 2


def returns_the_width_alone(a_hu, b_hu, contrast):
    return abs(a_hu - b_hu) / contrast


def counts_power_and_not_amplitude(rmse_hu, low_hu, high_hu):
    return 10 * np.log10((high_hu - low_hu) / rmse_hu)


def takes_the_natural_logarithm(rmse_hu, low_hu, high_hu):
    return 20 * np.log((high_hu - low_hu) / rmse_hu)


def takes_the_largest_hu_for_the_range(rmse_hu, low_hu, high_hu):
    return 20 * np.log10(high_hu / rmse_hu)


def turns_the_ratio_round(rmse_hu, low_hu, high_hu):
    return 20 * np.log10(rmse_hu / (high_hu - low_hu))


def takes_half_the_range(rmse_hu, low_hu, high_hu):
    return 20 * np.log10((high_hu - low_hu) / 2 / rmse_hu)


def always_takes_400(rmse_hu, low_hu, high_hu):
    return 20 * np.log10(400 / rmse_hu)


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


def forgets_the_root_of_d(q, k):
    return (q @ k.T).softmax(dim=1)


def divides_by_d(q, k):
    return (q @ k.T / q.shape[1]).softmax(dim=1)


def takes_the_number_of_keys_for_d(q, k):
    return (q @ k.T / len(k) ** 0.5).softmax(dim=1)


def lets_keys_choose_queries(q, k):
    return (q @ k.T / q.shape[1] ** 0.5).softmax(dim=0)


def swaps_queries_and_keys(q, k):
    return (k @ q.T / q.shape[1] ** 0.5).softmax(dim=1)


def takes_a_sigmoid(q, k):
    return (q @ k.T / q.shape[1] ** 0.5).sigmoid()


def divides_scores_by_their_sum(q, k):
    scores = (q @ k.T / q.shape[1] ** 0.5).abs()
    return scores / scores.sum(1, keepdim=True)


def lets_the_exponential_overflow(q, k):
    weights = (q @ k.T / q.shape[1] ** 0.5).exp()
    return weights / weights.sum(1, keepdim=True)


def forgets_the_residual(attentions):
    rolled = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    for attention in attentions:
        rolled = attention @ rolled
    return rolled


def forgets_to_halve(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = own
    for attention in attentions:
        rolled = (own + attention) @ rolled
    return rolled


def forgets_to_halve_but_divides_at_the_end(attentions):
    rolled = forgets_to_halve(attentions)
    return rolled / 2


def puts_the_later_block_on_the_right(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = own
    for attention in attentions:
        rolled = rolled @ (own + attention) / 2
    return rolled


def averages_the_blocks(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    return (own + torch.stack(attentions).mean(0)) / 2


def multiplies_place_by_place(attentions):
    own = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    rolled = torch.ones_like(own)
    for attention in attentions:
        rolled = (own + attention) / 2 * rolled
    return rolled


def adds_the_identity_only_once(attentions):
    return (torch.eye(len(attentions[0]), dtype=attentions[0].dtype) + forgets_the_residual(attentions)) / 2


def adds_the_identity_in_place(attentions):
    rolled = torch.eye(len(attentions[0]), dtype=attentions[0].dtype)
    for attention in attentions:
        attention += torch.eye(len(attention), dtype=attention.dtype)
        rolled = attention / 2 @ rolled
    return rolled


def gradients_along_a_path(f, x, baseline, steps):
    points = [baseline + (n + 0.5) / steps * (x - baseline) for n in range(steps)]
    return [torch.autograd.grad(f(point.requires_grad_()), point)[0] for point in points]


def takes_the_gradient_at_the_end(f, x, baseline, steps):
    return (x - baseline) * gradients_along_a_path(f, x, x, 1)[0]


def returns_the_mean_gradient(f, x, baseline, steps):
    return sum(gradients_along_a_path(f, x, baseline, steps)) / steps


def forgets_to_divide_by_the_steps(f, x, baseline, steps):
    return (x - baseline) * sum(gradients_along_a_path(f, x, baseline, steps))


def multiplies_with_x(f, x, baseline, steps):
    return x * sum(gradients_along_a_path(f, x, baseline, steps)) / steps


def walks_from_0(f, x, baseline, steps):
    return (x - baseline) * sum(gradients_along_a_path(f, x, torch.zeros_like(x), steps)) / steps


def walks_with_the_wrong_sign(f, x, baseline, steps):
    return (baseline - x) * sum(gradients_along_a_path(f, x, baseline, steps)) / steps


def returns_the_sum_of_the_shares(f, x, baseline, steps):
    return ((x - baseline) * sum(gradients_along_a_path(f, x, baseline, steps)) / steps).sum()


def takes_absolute_gradients(f, x, baseline, steps):
    return (x - baseline) * sum(one.abs() for one in gradients_along_a_path(f, x, baseline, steps)) / steps


def shares_the_difference_evenly(f, x, baseline, steps):
    return (f(x) - f(baseline)) / x.numel() * torch.ones_like(x)


def stops_half_way(f, x, baseline, steps):
    return (x - baseline) * sum(gradients_along_a_path(f, (x + baseline) / 2, baseline, steps)) / steps


def takes_the_correlation(detail, residual):
    return np.corrcoef(detail, residual)[0, 1]


def divides_by_the_residuals_power(detail, residual):
    return (detail * residual).sum() / (residual**2).sum()


def compares_the_spreads(detail, residual):
    return np.std(residual) / np.std(detail)


def forgets_to_divide(detail, residual):
    return (detail * residual).mean()


def takes_the_size_only(detail, residual):
    return abs((detail * residual).sum()) / (detail**2).sum()


def compares_absolute_values(detail, residual):
    return abs(residual).sum() / abs(detail).sum()


def averages_the_ratios(detail, residual):
    there = detail != 0
    return (residual[there] / detail[there]).mean()


def returns_what_is_left(detail, residual):
    return 1 - (detail * residual).sum() / (detail**2).sum()


def takes_the_mean_for_both(slices):
    return slices.mean(0), slices.mean(0)


def takes_the_median_for_both(slices):
    return np.median(slices, 0), np.median(slices, 0)


def takes_the_median_first(slices):
    return np.median(slices, 0), slices.mean(0)


def takes_one_number_for_all_pixels(slices):
    return np.full(slices[0].shape, slices.mean()), np.full(slices[0].shape, np.median(slices))


def averages_along_a_row(slices):
    return slices.mean(1), np.median(slices, 1)


def takes_the_middle_of_the_range(slices):
    return (slices.min(0) + slices.max(0)) / 2, np.median(slices, 0)


def takes_the_first_slice(slices):
    return slices.mean(0), slices[0]


def returns_the_mean_alone(slices):
    return slices.mean(0).tolist()[0][0]


def takes_the_ratio_of_the_wanted(noisy, smooth, wanted_hu):
    return wanted_hu / np.std(noisy)


def goes_along_the_deviations(noisy, smooth, wanted_hu):
    return (wanted_hu - np.std(smooth)) / (np.std(noisy) - np.std(smooth))


def goes_along_the_variances(noisy, smooth, wanted_hu):
    return (wanted_hu**2 - np.var(smooth)) / (np.var(noisy) - np.var(smooth))


def forgets_the_covariance(noisy, smooth, wanted_hu):
    a, b, c = np.var(noisy) + np.var(smooth), -2 * np.var(smooth), np.var(smooth) - wanted_hu**2
    return (-b + np.sqrt(b**2 - 4 * a * c)) / (2 * a)


def gives_the_share_of_the_smooth(noisy, smooth, wanted_hu):
    return 1 - chapter_03.share_of_noisy(noisy, smooth, wanted_hu)


def returns_the_blend(noisy, smooth, wanted_hu):
    a = chapter_03.share_of_noisy(noisy, smooth, wanted_hu)
    return a * noisy + (1 - a) * smooth


def forgets_the_crop(y, x, height, width, patch):
    row, column = y // patch, x // patch
    return row, column, row * patch, column * patch


def crops_at_the_end_only(y, x, height, width, patch):
    row, column = y // patch, x // patch
    return row, column, height % patch // 2 + row * patch, width % patch // 2 + column * patch


def cuts_the_whole_rest_off_above(y, x, height, width, patch):
    above, before = height % patch, width % patch
    row, column = (y - above) // patch, (x - before) // patch
    return row, column, above + row * patch, before + column * patch


def rounds_to_the_next_token(y, x, height, width, patch):
    above, before = height % patch // 2, width % patch // 2
    row, column = round((y - above) / patch), round((x - before) / patch)
    return row, column, above + row * patch, before + column * patch


def returns_fractions_of_tokens(y, x, height, width, patch):
    above, before = height % patch // 2, width % patch // 2
    return (y - above) / patch, (x - before) / patch, y, x


def takes_x_for_the_row(y, x, height, width, patch):
    above, before = height % patch // 2, width % patch // 2
    row, column = (x - before) // patch, (y - above) // patch
    return row, column, above + row * patch, before + column * patch


def stays_in_the_cropped_picture(y, x, height, width, patch):
    row, column = (y - height % patch // 2) // patch, (x - width % patch // 2) // patch
    return row, column, row * patch, column * patch


def takes_the_heights_crop_for_both(y, x, height, width, patch):
    above = height % patch // 2
    row, column = (y - above) // patch, (x - above) // patch
    return row, column, above + row * patch, above + column * patch


def takes_14_for_every_patch(y, x, height, width, patch):
    above, before = height % 14 // 2, width % 14 // 2
    row, column = (y - above) // 14, (x - before) // 14
    return row, column, above + row * 14, before + column * 14


def returns_the_token_alone(y, x, height, width, patch):
    return (y - height % patch // 2) // patch, (x - width % patch // 2) // patch


def forgets_to_centre(tokens, k):
    return tokens @ torch.linalg.svd(tokens, full_matrices=False)[2][:k].T


def centres_each_token(tokens, k):
    centred = tokens - tokens.mean(1, keepdim=True)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:k].T


def centres_for_the_directions_only(tokens, k):
    return tokens @ torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[2][:k].T


def leaves_the_spreads_out(tokens, k):
    return torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[0][:, :k]


def returns_the_directions(tokens, k):
    return torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)[2][:k]


def takes_columns_for_directions(tokens, k):
    centred = tokens - tokens.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:, :k]


def takes_the_smallest_components(tokens, k):
    centred = tokens - tokens.mean(0)
    return centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, :k]


def gives_each_channel_the_spread_1(tokens, k):
    centred = (tokens - tokens.mean(0)) / tokens.std(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False)[2][:k].T


def squares_the_spreads(tokens, k):
    u, s, _ = torch.linalg.svd(tokens - tokens.mean(0), full_matrices=False)
    return u[:, :k] * s[:k] ** 2


def forgets_both_lengths(query, features):
    return torch.einsum("c,chw->hw", query, features)


def forgets_the_tokens_lengths(query, features):
    return torch.einsum("c,chw->hw", query / query.norm(), features)


def forgets_the_querys_length(query, features):
    return torch.einsum("c,chw->hw", query, F.normalize(features, dim=0))


def divides_by_the_length_of_all(query, features):
    return torch.einsum("c,chw->hw", query, features) / (query.norm() * features.norm())


def normalises_along_a_row(query, features):
    return torch.einsum("c,chw->hw", F.normalize(query, dim=0), F.normalize(features, dim=-1))


def takes_a_correlation(query, features):
    return torch.einsum(
        "c,chw->hw",
        F.normalize(query - query.mean(), dim=0),
        F.normalize(features - features.mean(0), dim=0),
    )


def takes_the_distance(query, features):
    return (features - query[:, None, None]).norm(dim=0)


def forgets_the_sign(query, features):
    return F.cosine_similarity(query[:, None, None], features, dim=0).abs()


def returns_a_row_of_tokens(query, features):
    return F.cosine_similarity(query[:, None], features.flatten(1), dim=0)


def turns_the_map(query, features):
    return F.cosine_similarity(query[:, None, None], features, dim=0).T


def swaps_the_shares(old, new, decay):
    return (1 - decay) * old + decay * new


def adds_the_whole_new(old, new, decay):
    return decay * old + new


def averages(old, new, decay):
    return (old + new) / 2


def changes_old(old, new, decay):
    old.mul_(decay).add_((1 - decay) * new)
    return old


def changes_new_and_returns_a_copy(old, new, decay):
    new *= 1 - decay
    return decay * old + new


def returns_one_number(old, new, decay):
    return (decay * old + (1 - decay) * new).mean()


def does_not_detach(discriminator, real, fake):
    return bce(discriminator(real), 1.0) + bce(discriminator(fake), 0.0)


def swaps_the_labels(discriminator, real, fake):
    return bce(discriminator(real), 0.0) + bce(discriminator(fake.detach()), 1.0)


def applies_the_sigmoid_twice(discriminator, real, fake):
    real_score = torch.sigmoid(discriminator(real))
    fake_score = torch.sigmoid(discriminator(fake.detach()))
    return bce(real_score, 1.0) + bce(fake_score, 0.0)


def sums_over_the_logits(discriminator, real, fake):
    means = bce(discriminator(real), 1.0) + bce(discriminator(fake.detach()), 0.0)
    return means * real.numel()


def halves_the_sum(discriminator, real, fake):
    return (bce(discriminator(real), 1.0) + bce(discriminator(fake.detach()), 0.0)) / 2


def sees_only_the_real(discriminator, real, fake):
    return bce(discriminator(real), 1.0)


def detaches_the_discriminator(discriminator, real, fake):
    return bce(discriminator(real), 1.0) + bce(discriminator(fake).detach(), 0.0)


def cuts_everything_off(discriminator, real, fake):
    with torch.no_grad():
        return bce(discriminator(real), 1.0) + bce(discriminator(fake), 0.0)


def returns_a_python_number(discriminator, real, fake):
    return does_not_detach(discriminator, real, fake).item()


def cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


def skips_the_warmup(step, *, steps, warmup, peak):
    return peak * cosine(step / steps)


def begins_with_nothing(step, *, steps, warmup, peak):
    return peak * step / warmup if step < warmup else peak * cosine((step - warmup) / (steps - warmup))


def runs_the_cosine_from_step_0(step, *, steps, warmup, peak):
    return peak * (step + 1) / warmup if step < warmup else peak * cosine(step / steps)


def forgets_the_half(step, *, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 2 * cosine((step - warmup) / (steps - warmup))


def falls_below_0(step, *, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * math.cos(math.pi * (step - warmup) / (steps - warmup))


def falls_in_a_line(step, *, steps, warmup, peak):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


def divides_by_the_warmup(step, *, steps, warmup, peak):
    return min(peak * (step + 1) / warmup, peak * cosine(max(0, step - warmup) / (steps - warmup)))


def adds_rows_and_columns(row, column, h, w, distance):
    rows, columns = (torch.arange(h) - row).abs()[:, None], (torch.arange(w) - column).abs()
    return rows + columns >= distance


def takes_the_straight_line(row, column, h, w, distance):
    rows, columns = (torch.arange(h) - row)[:, None], torch.arange(w) - column
    return (rows**2 + columns**2) ** 0.5 >= distance


def leaves_the_distance_itself_out(row, column, h, w, distance):
    return chapter_07.far_from(row, column, h, w, distance + 1)


def wants_both_directions(row, column, h, w, distance):
    rows, columns = (torch.arange(h) - row).abs()[:, None], (torch.arange(w) - column).abs()
    return (rows >= distance) & (columns >= distance)


def swaps_row_and_column(row, column, h, w, distance):
    return chapter_07.far_from(column, row, h, w, distance)


def marks_what_is_near(row, column, h, w, distance):
    return ~chapter_07.far_from(row, column, h, w, distance)


def flattens_the_grid(row, column, h, w, distance):
    return chapter_07.far_from(row, column, h, w, distance).flatten()


def returns_the_distance(row, column, h, w, distance):
    return torch.maximum((torch.arange(h) - row).abs()[:, None], (torch.arange(w) - column).abs())


def forgets_the_absolute_value(row, column, h, w, distance):
    return torch.maximum((torch.arange(h) - row)[:, None], torch.arange(w) - column) >= distance


def logits_of(positive, negatives, temperature):
    return torch.cat([positive[:, None], negatives], 1) / temperature


def leaves_the_positive_out_below(positive, negatives, temperature):
    return (negatives / temperature).logsumexp(1) - positive / temperature


def forgets_the_minus(positive, negatives, temperature):
    return -chapter_07.info_nce(positive, negatives, temperature)


def averages_the_negatives(positive, negatives, temperature):
    own = (positive / temperature).exp()
    return -(own / (own + (negatives / temperature).exp().mean(1))).log()


def takes_bits(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, temperature) / math.log(2)


def returns_the_share(positive, negatives, temperature):
    return logits_of(positive, negatives, temperature).softmax(1)[:, 0]


def multiplies_by_the_temperature(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, 1 / temperature)


def forgets_the_temperature(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, 1.0)


def cools_the_positive_only(positive, negatives, temperature):
    return chapter_07.info_nce(positive / temperature, negatives, 1.0)


def averages_over_places(positive, negatives, temperature):
    return chapter_07.info_nce(positive, negatives, temperature).mean()


def lets_the_exponentials_overflow(positive, negatives, temperature):
    shares = logits_of(positive, negatives, temperature).exp()
    return -(shares[:, 0] / shares.sum(1)).log()


def takes_off_a_largest_that_may_not_count(positive, negatives, temperature):
    logits = logits_of(positive, negatives, temperature)
    logits = logits - logits.min(1, keepdim=True).values
    return logits.logsumexp(1) - logits[:, 0]


def forgets_the_one_at_the_positive(positive, negatives, temperature):
    return logits_of(positive, negatives, temperature).softmax(1) / temperature


def turns_the_pulls_round(positive, negatives, temperature):
    return -chapter_07.pulls(positive, negatives, temperature)


def puts_the_positive_last(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, temperature).roll(-1, 1)


def forgets_the_chain_rule(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, temperature) * temperature


def heats_the_softmax(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, 1.0) / temperature


def averages_the_pulls(positive, negatives, temperature):
    return chapter_07.pulls(positive, negatives, temperature) / len(positive)


def sums_the_pulls_of_negatives(positive, negatives, temperature):
    one = chapter_07.pulls(positive, negatives, temperature)
    return torch.stack([one[:, 0], one[:, 1:].sum(1)], 1)


def takes_the_wrong_softmax(positive, negatives, temperature):
    shares = logits_of(positive, negatives, temperature).softmax(0)
    shares[:, 0] -= 1
    return shares / temperature


def lets_the_softmax_overflow(positive, negatives, temperature):
    shares = logits_of(positive, negatives, temperature).exp()
    shares = shares / shares.sum(1, keepdim=True)
    shares[:, 0] -= 1
    return shares / temperature


def averages_the_slices(ours, theirs):
    return ours.mean(1) - theirs.mean(1)[: len(ours)]


def subtracts_ours_from_theirs(ours, theirs):
    return theirs.mean(0) - ours.mean(0)


def keeps_the_seeds_apart(ours, theirs):
    return ours - theirs


def pairs_the_seeds_one_by_one(ours, theirs):
    seeds = min(len(ours), len(theirs))
    return (ours[:seeds] - theirs[:seeds]).mean(0)


def subtracts_the_mean_of_all(ours, theirs):
    return ours.mean(0) - theirs.mean()


def takes_the_best_seed(ours, theirs):
    return ours.max(0) - theirs.max(0)


def subtracts_in_place(ours, theirs):
    ours -= theirs.mean(0)
    return ours.mean(0)


def returns_one_difference(ours, theirs):
    return ours.mean() - theirs.mean()


def resampled(values, rng):
    return rng.choice(values, size=(2000, len(values))).mean(1)


def draws_without_replacement(values, rng):
    samples = np.stack([rng.permutation(values) for _ in range(2000)])
    return np.percentile(samples.mean(1), [2.5, 97.5])


def takes_percentiles_of_the_values(values, rng):
    return np.percentile(rng.choice(values, 2000), [2.5, 97.5])


def holds_90_percent(values, rng):
    return np.percentile(resampled(values, rng), [5, 95])


def goes_one_deviation_to_both_sides(values, rng):
    means = resampled(values, rng)
    return means.mean() - means.std(), means.mean() + means.std()


def goes_1_96_deviations_to_both_sides(values, rng):
    means = resampled(values, rng)
    return means.mean() - 1.96 * means.std(), means.mean() + 1.96 * means.std()


def takes_percentages_for_shares(values, rng):
    return np.percentile(resampled(values, rng), [0.025, 0.975])


def puts_the_high_end_first(values, rng):
    return np.percentile(resampled(values, rng), [97.5, 2.5])


def resamples_with_a_seed_of_its_own(values, rng):
    return np.percentile(resampled(values, np.random.default_rng(0)), [2.5, 97.5])


def resamples_the_global_way(values, rng):
    samples = np.random.choice(values, size=(2000, len(values)))
    return np.percentile(samples.mean(1), [2.5, 97.5])


def draws_fewer_than_there_are(values, rng):
    samples = rng.choice(values, size=(2000, len(values) // 2))
    return np.percentile(samples.mean(1), [2.5, 97.5])


def forgets_what_is_wanted(intervals, wanted):
    return chapter_10.verdict(intervals, [1] * len(wanted))


def never_says_no(intervals, wanted):
    return "seen" if chapter_10.verdict(intervals, wanted) == "seen" else "cannot be told"


def takes_doubt_for_a_no(intervals, wanted):
    return "seen" if chapter_10.verdict(intervals, wanted) == "seen" else "not seen"


def judges_by_the_middle(intervals, wanted):
    middles = [sign * (low + high) for (low, high), sign in zip(intervals, wanted, strict=True)]
    return "seen" if min(middles) > 0 else "not seen" if max(middles) < 0 else "cannot be told"


def is_content_with_one(intervals, wanted):
    verdicts = [chapter_10.verdict([one], [sign]) for one, sign in zip(intervals, wanted, strict=True)]
    return next((one for one in ("seen", "not seen") if one in verdicts), "cannot be told")


def wants_every_no(intervals, wanted):
    verdicts = {chapter_10.verdict([one], [sign]) for one, sign in zip(intervals, wanted, strict=True)}
    return verdicts.pop() if len(verdicts) == 1 else "cannot be told"


def counts_0_as_above(intervals, wanted):
    shifted = [
        (low + sign * 1e-9, high + sign * 1e-9) for (low, high), sign in zip(intervals, wanted, strict=True)
    ]
    return chapter_10.verdict(shifted, wanted)


def turns_the_sign_and_not_the_ends(intervals, wanted):
    turned = [(sign * low, sign * high) for (low, high), sign in zip(intervals, wanted, strict=True)]
    if all(low > 0 for low, _ in turned):
        return "seen"
    return "not seen" if any(high < 0 for _, high in turned) else "cannot be told"


def returns_a_truth_value(intervals, wanted):
    return chapter_10.verdict(intervals, wanted) == "seen"


def multiplies_kernels(layers):
    return math.prod(kernel for kernel, _ in layers)


def adds_kernels(layers):
    return sum(kernel for kernel, _ in layers)


def forgets_the_strides(layers):
    return 1 + sum(kernel - 1 for kernel, _ in layers)


def strides_before_it_adds(layers):
    seen, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        seen += (kernel - 1) * step
    return seen


def takes_only_the_last_stride(layers):
    seen, before = 1, 1
    for kernel, stride in layers:
        seen, before = seen + (kernel - 1) * before, stride
    return seen


def adds_strides_up(layers):
    seen, step = 1, 1
    for kernel, stride in layers:
        seen, step = seen + (kernel - 1) * step, step + stride - 1
    return seen


def goes_from_the_output_down_the_wrong_way(layers):
    return chapter_06.pixels_seen(layers[::-1])


def begins_without_a_pixel(layers):
    return chapter_06.pixels_seen(layers) - 1


def returns_the_radius(layers):
    return chapter_06.pixels_seen(layers) // 2


def swaps_real_and_fake(real, fake):
    return F.softplus(real).mean() + F.softplus(-fake).mean(), F.softplus(-fake).mean()


def saturates(real, fake):
    return chapter_06.adversarial_losses(real, fake)[0], -F.softplus(fake).mean()


def cuts_large_logits_off(real, fake):
    return chapter_06.adversarial_losses(real.clamp(-15, 15), fake.clamp(-15, 15))


def forgets_the_sign_of_the_generators(real, fake):
    d_loss, g_loss = chapter_06.adversarial_losses(real, fake)
    return d_loss, -g_loss


def returns_probabilities(real, fake):
    p, q = torch.sigmoid(real).mean(), torch.sigmoid(fake).mean()
    return 1 - p + q, 1 - q


def takes_logs_of_sigmoids(real, fake):
    p, q = torch.sigmoid(real), torch.sigmoid(fake)
    return -p.log().mean() - (1 - q).log().mean(), -q.log().mean()


def pools_real_and_fake(real, fake):
    logits = torch.cat([-real, fake])
    return 2 * F.softplus(logits).mean(), F.softplus(-fake).mean()


def sums_instead_of_means(real, fake):
    return F.softplus(-real).sum() + F.softplus(fake).sum(), F.softplus(-fake).sum()


def keeps_every_logit(real, fake):
    return F.softplus(-real), F.softplus(-fake)


def returns_the_discriminators_alone(real, fake):
    return chapter_06.adversarial_losses(real, fake)[0]


def lets_the_generator_fear(real, fake):
    return chapter_06.adversarial_losses(real, fake)[0], F.softplus(fake).mean()


def makes_python_numbers(real, fake):
    d_loss, g_loss = chapter_06.adversarial_losses(real, fake)
    return d_loss.item(), g_loss.item()


def asks_without_scale(asking, asked, w_q, w_k, w_v):
    return ((asking @ w_q) @ (asked @ w_k).T).softmax(1) @ (asked @ w_v)


def scales_by_d(asking, asked, w_q, w_k, w_v):
    return ((asking @ w_q) @ (asked @ w_k).T / w_q.shape[1]).softmax(1) @ (asked @ w_v)


def shares_over_the_asking(asking, asked, w_q, w_k, w_v):
    return ((asking @ w_q) @ (asked @ w_k).T / w_q.shape[1] ** 0.5).softmax(0) @ (asked @ w_v)


def returns_the_shares(asking, asked, w_q, w_k, w_v):
    return ((asking @ w_q) @ (asked @ w_k).T / w_q.shape[1] ** 0.5).softmax(1)


def forgets_the_values_matrix(asking, asked, w_q, w_k, w_v):
    return returns_the_shares(asking, asked, w_q, w_k, w_v) @ asked


def takes_the_best_alone(asking, asked, w_q, w_k, w_v):
    return (asked @ w_v)[returns_the_shares(asking, asked, w_q, w_k, w_v).argmax(1)]


def takes_the_mean_of_all(asking, asked, w_q, w_k, w_v):
    return (asked @ w_v).mean(0).expand(len(asking), -1)


def takes_sigmoids(asking, asked, w_q, w_k, w_v):
    scores = (asking @ w_q) @ (asked @ w_k).T / w_q.shape[1] ** 0.5
    return scores.sigmoid() @ (asked @ w_v)


def scales_by_the_width_of_tokens(asking, asked, w_q, w_k, w_v):
    return ((asking @ w_q) @ (asked @ w_k).T / asking.shape[1] ** 0.5).softmax(1) @ (asked @ w_v)


def swaps_the_two_means(mse, width):
    return chapter_09.psnr_two_ways(mse, width)[::-1]


def averages_the_decibels_twice(mse, width):
    return (chapter_09.psnr_two_ways(mse, width)[0],) * 2


def averages_the_errors_twice(mse, width):
    return (chapter_09.psnr_two_ways(mse, width)[1],) * 2


def takes_a_fixed_range(mse, width):
    return chapter_09.psnr_two_ways(mse, 400.0)


def does_not_square_the_width(mse, width):
    return tuple(10 * np.log10(width / np.array([np.exp(np.log(mse).mean()), mse.mean()])))


def averages_roots(mse, width):
    return chapter_09.psnr_two_ways(mse, width)[0], 20 * np.log10(width / np.sqrt(mse).mean())


def leaves_the_decibels_unaveraged(mse, width):
    return 10 * np.log10(width**2 / mse), 10 * np.log10(width**2 / mse.mean())


def draws_patients_only(values, rng):
    return chapter_09.patient_interval([np.full(len(v), v.mean()) for v in values], rng)


def draws_slices_only(values, rng):
    means = [np.mean([rng.choice(v, len(v)).mean() for v in values]) for _ in range(2000)]
    return np.percentile(means, [2.5, 97.5])


def pools_the_slices(values, rng):
    pooled = np.concatenate(values)
    return np.percentile(rng.choice(pooled, (2000, len(pooled))).mean(1), [2.5, 97.5])


def averages_all_slices_drawn(values, rng):
    means = []
    for _ in range(2000):
        drawn = rng.integers(len(values), size=len(values))
        means.append(np.concatenate([rng.choice(values[i], len(values[i])) for i in drawn]).mean())
    return np.percentile(means, [2.5, 97.5])


def keeps_90_percent_of_patients_means(values, rng):
    low, high = chapter_09.patient_interval(values, rng)
    middle = (low + high) / 2
    return middle - 0.84 * (middle - low), middle + 0.84 * (high - middle)


def puts_the_high_end_of_patients_first(values, rng):
    return chapter_09.patient_interval(values, rng)[::-1]


def draws_patients_with_a_seed_of_its_own(values, rng):
    return chapter_09.patient_interval(values, np.random.default_rng(0))


def draws_patients_the_global_way(values, rng):
    return chapter_09.patient_interval(values, np.random.default_rng(np.random.randint(2**31)))


def divides_by_k(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / np.sqrt((seen.var() + unseen.var()) / 2)


def adds_both_variances(present, absent, template):
    return chapter_09.observer(present, absent, template) / math.sqrt(2)


def looks_at_one_spread(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / unseen.std(ddof=1)


def averages_deviations(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / (seen.std(ddof=1) + unseen.std(ddof=1)) * 2


def forgets_the_template(present, absent, template):
    return chapter_09.observer(present, absent, np.ones_like(template))


def does_not_divide_by_the_spread(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / template.sum()


def divides_by_the_variance(present, absent, template):
    seen, unseen = ((scans * template).sum((1, 2)) for scans in (present, absent))
    return (seen.mean() - unseen.mean()) / ((seen.var(ddof=1) + unseen.var(ddof=1)) / 2)


def takes_the_size_of_d(present, absent, template):
    return abs(chapter_09.observer(present, absent, template))


def multiplies_all_by_m(p):
    return np.minimum(len(p) * p, 1)


def returns_them_sorted(p):
    return np.sort(chapter_09.holm_adjusted(p))


def lets_a_larger_p_get_ahead(p):
    order = np.argsort(p)
    return np.minimum(((len(p) - np.arange(len(p))) * p[order])[np.argsort(order)], 1)


def exceeds_1(p):
    order = np.argsort(p)
    return np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])[np.argsort(order)]


def pays_from_the_largest(p):
    order = np.argsort(p)
    return np.minimum((np.arange(1, len(p) + 1) * p[order])[np.argsort(order)], 1)


def counts_from_m_plus_1(p):
    order = np.argsort(p)
    factors = len(p) + 1 - np.arange(len(p))
    return np.minimum(np.maximum.accumulate(factors * p[order]), 1)[np.argsort(order)]


def permutes_the_wrong_way(p):
    order = np.argsort(p)
    return np.sort(chapter_09.holm_adjusted(p))[order]


def corrects_by_false_discovery(p):
    order = np.argsort(p)
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    return np.minimum.accumulate(steps[::-1])[::-1][np.argsort(order)]


MISTAKES = {
    "00.1": {
        forgets_the_root: "a constant offset of 10 HU gives 10 HU",
        forgets_to_clip: "both images are clipped first",
        clips_the_difference: "both images are clipped first",
        clips_only_one: "identical images give 0",
        takes_the_mean_of_absolutes: "the result is in HU",
        takes_the_root_before_the_mean: "a constant offset of 10 HU gives 10 HU",
        returns_window_units: "a constant offset of 10 HU gives 10 HU",
        returns_an_image: "expected one number",
    },
    "00.2": {
        returns_the_total: "full dose adds nothing",
        subtracts_the_deviations: "half the dose adds as much as there was",
        forgets_the_noises_root: "variances add up",
        returns_the_variance: "half the dose adds as much as there was",
        takes_what_is_missing_of_the_dose: "half the dose adds as much as there was",
        takes_a_dose_in_percent: "full dose adds nothing",
    },
    "01.1": {
        always_subtracts_1024: "the header decides",
        forgets_the_intercept: "the usual header",
        forgets_the_slope: "the slope comes first",
        adds_the_intercept_first: "the slope comes first",
        subtracts_the_intercept: "the usual header",
        reads_all_as_signed: "large unsigned values stay large",
        stores_the_result_unsigned: "large unsigned values stay large",
        flattens: "the shape should be (2, 2)",
    },
    "01.2": {
        never_clips: "below the window all is black",
        clips_below_only: "above the window all is white",
        takes_the_level_for_black: "the level is mid-grey",
        takes_the_width_to_both_sides: "below the window all is black",
        returns_greys_of_8_bits: "the level is mid-grey",
        turns_black_and_white_round: "below the window all is black",
        swaps_level_and_width: "the level is mid-grey",
        has_only_black_and_white: "a straight line in between",
        clips_the_hu_only: "the level is mid-grey",
    },
    "01.3": {
        lets_the_width_be_negative: "the order of the tissues does not matter",
        multiplies_by_the_contrast: "the width in HU: expected 72",
        forgets_the_contrast: "the width in HU: expected 72",
        puts_the_level_on_a_tissue: "the level in HU: expected 54",
        takes_half_the_distance_for_the_level: "the level in HU: expected 54",
        returns_the_width_first: "the level in HU: expected 54",
        returns_the_width_alone: "`return level, width`",
    },
    "01.4": {
        counts_power_and_not_amplitude: "not 20 dB less",
        takes_the_natural_logarithm: "not 20 dB less",
        takes_the_largest_hu_for_the_range: "9 HU over 400 HU is 33 dB",
        turns_the_ratio_round: "not 20 dB less",
        takes_half_the_range: "9 HU over 400 HU is 33 dB",
        always_takes_400: "only the width of the range counts",
    },
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
    "03.1": {
        takes_the_correlation: "a tenth of it is 0.1: for the detail",
        divides_by_the_residuals_power: "expected 0.1, yours gives 10",
        compares_the_spreads: "noise alone is 0: for the detail",
        forgets_to_divide: "all of the detail is 1: for the detail",
        takes_the_size_only: "expected -0.1, yours gives 0.1",
        compares_absolute_values: "noise alone is 0: for the detail",
        averages_the_ratios: "noise alone is 0: for the detail",
        returns_what_is_left: "expected 1, yours gives 0",
    },
    "03.2": {
        takes_the_mean_for_both: "the second picture, for 40, 40 and 100 HU",
        takes_the_median_for_both: "the first picture, for 40, 40 and 100 HU",
        takes_the_median_first: "a rare vessel is a veil in the first",
        takes_one_number_for_all_pixels: "each pixel has guesses of its own",
        averages_along_a_row: "(3, 1, 2) went in, so a picture has the shape (1, 2), yours has (3, 2)",
        takes_the_middle_of_the_range: "expected 60 at [0, 0], yours gives 70",
        takes_the_first_slice: "each pixel has guesses of its own: picture 2",
        returns_the_mean_alone: "end with `return first, second`",
    },
    "03.3": {
        takes_the_ratio_of_the_wanted: "none of it gives what is left",
        goes_along_the_deviations: "the smooth one's of its own",
        goes_along_the_variances: "expected 0.3, yours gives 0.09",
        forgets_the_covariance: "equal to the smooth one's expected 0, yours gives 0.1176",
        gives_the_share_of_the_smooth: "equal to the noisy one's expected 1, yours gives 0",
        returns_the_blend: "expected one number a, yours is of the type ndarray",
    },
    "04.1": {
        forgets_the_crop: "the top should be 4, yours is 0",
        crops_at_the_end_only: "a patch is 14 pixels wide: for pixel (17, 18), the last of row 0,",
        cuts_the_whole_rest_off_above: "where the crop to 504 x 504 begins",
        rounds_to_the_next_token: "the last of row 0, the row should be 0, yours is 1",
        returns_fractions_of_tokens: "the row should be 0, yours is 0.928571",
        takes_x_for_the_row: "the last of row 0, the row should be 0, yours is 1",
        stays_in_the_cropped_picture: "the top should be 4, yours is 0",
        takes_the_heights_crop_for_both: "height and width have crops of their own",
        takes_14_for_every_patch: "patches of 16, which need no crop",
        returns_the_token_alone: "`return row, column, top, left`",
    },
    "04.2": {
        forgets_to_centre: "the scores have mean 0",
        centres_each_token: "the scores have mean 0",
        centres_for_the_directions_only: "the scores have mean 0",
        leaves_the_spreads_out: "expected 18 at [0], yours gives 1",
        returns_the_directions: "the shape should be (40, 2): (2, 6)",
        takes_columns_for_directions: "tokens on a line need one component",
        takes_the_smallest_components: "the largest variance comes first",
        gives_each_channel_the_spread_1: "the largest variance comes first",
        squares_the_spreads: "expected 18 at [0]",
    },
    "04.3": {
        forgets_both_lengths: "expected -1 at [0, 2], yours gives -3",
        forgets_the_tokens_lengths: "expected -1 at [0, 2], yours gives -3",
        forgets_the_querys_length: "a token has 1 with itself",
        divides_by_the_length_of_all: "known angles",
        normalises_along_a_row: "known angles",
        takes_a_correlation: "known angles",
        takes_the_distance: "known angles",
        forgets_the_sign: "expected -1 at [0, 2], yours gives 1",
        returns_a_row_of_tokens: "the shape should be (1, 3), yours is (3,)",
        turns_the_map: "the shape should be (1, 3), yours is (3, 1)",
    },
    "05.1": {
        forgets_the_root_of_d: "are the scores divided by the root of d?",
        divides_by_d: "instead of by its root?",
        takes_the_number_of_keys_for_d: "not the number of keys",
        lets_keys_choose_queries: "rows sum to 1",
        swaps_queries_and_keys: "a row for every query, (2, 4); your shape is (4, 2)",
        takes_a_sigmoid: "rows sum to 1",
        divides_scores_by_their_sum: "a query of zeros looks everywhere alike",
        lets_the_exponential_overflow: "are not finite: exp(2000) is",
    },
    "05.2": {
        forgets_the_residual: "half of a token passes by it",
        forgets_to_halve: "looking at oneself changes nothing",
        forgets_to_halve_but_divides_at_the_end: "looking at oneself changes nothing",
        puts_the_later_block_on_the_right: "the later block belongs on the left",
        averages_the_blocks: "the later block stands on the left",
        multiplies_place_by_place: "the later block stands on the left",
        adds_the_identity_only_once: "the later block stands on the left",
        adds_the_identity_in_place: "changes the attentions it was given",
    },
    "05.3": {
        takes_the_gradient_at_the_end: "take the gradient all along the way",
        returns_the_mean_gradient: "a linear function gives its weights",
        forgets_to_divide_by_the_steps: "a linear function gives its weights",
        multiplies_with_x: "a linear function gives its weights",
        walks_from_0: "the way begins at the baseline",
        walks_with_the_wrong_sign: "a linear function gives its weights",
        returns_the_sum_of_the_shares: "the shape should be (3,)",
        takes_absolute_gradients: "a linear function gives its weights",
        shares_the_difference_evenly: "a linear function gives its weights",
        stops_half_way: "the way counts",
    },
    "06.1": {
        multiplies_kernels: "their squares overlap",
        adds_kernels: "their squares overlap",
        forgets_the_strides: "neighbours are 2 pixels apart",
        strides_before_it_adds: "one layer sees its kernel",
        takes_only_the_last_stride: "strides multiply",
        adds_strides_up: "strides multiply",
        goes_from_the_output_down_the_wrong_way: "a stride spreads what follows",
        begins_without_a_pixel: "one layer sees its kernel",
        returns_the_radius: "one layer sees its kernel",
    },
    "06.2": {
        swaps_real_and_fake: "real and fake seem swapped",
        saturates: "or is it log(1 - p)?",
        cuts_large_logits_off: "and cut nothing off",
        forgets_the_sign_of_the_generators: "is a sign missing",
        returns_probabilities: "is that p itself?",
        takes_logs_of_sigmoids: "is not finite",
        pools_real_and_fake: "means of their own",
        sums_instead_of_means: "guessing costs log 2",
        keeps_every_logit: "should be one number",
        returns_the_discriminators_alone: "`return d_loss, g_loss`",
        lets_the_generator_fear: "takes its patch for real",
        makes_python_numbers: "keep them tensors",
    },
    "06.3": {
        asks_without_scale: "are scores divided by the root of d?",
        scales_by_d: "instead of by its root?",
        shares_over_the_asking: "one token asked gives its value",
        returns_the_shares: "expected (2, 6), your shape is (2, 5)",
        forgets_the_values_matrix: "your shape is (2, 4)",
        takes_the_best_alone: "a question without content gets the mean",
        takes_the_mean_of_all: "the first weight",
        takes_sigmoids: "one token asked gives its value",
        scales_by_the_width_of_tokens: "equals the reference answer",
    },
    "07.1": {
        adds_rows_and_columns: "do you add the steps up?",
        takes_the_straight_line: "the straight line, 4.2",
        leaves_the_distance_itself_out: "at least means >=",
        wants_both_directions: "the distance itself is far",
        swaps_row_and_column: "are rows and columns swapped?",
        marks_what_is_near: "called far from itself",
        flattens_the_grid: "a mask (4, 6); yours is (24,)",
        returns_the_distance: "not a distance",
        forgets_the_absolute_value: "rows come first",
    },
    "07.2": {
        leaves_the_positive_out_below: "the positive belongs into the sum below, too",
        forgets_the_minus: "a loss is minus the logarithm",
        averages_the_negatives: "summed, not averaged",
        takes_bits: "a logarithm to the base of 2?",
        returns_the_share: "that is the share",
        multiplies_by_the_temperature: "you multiply by the temperature",
        forgets_the_temperature: "the temperature has no say in yours",
        cools_the_positive_only: "the temperature divides",
        averages_over_places: "a loss for every place",
        lets_the_exponentials_overflow: "exp(900) is infinite",
        takes_off_a_largest_that_may_not_count: "a negative left out costs nothing",
    },
    "07.3": {
        forgets_the_one_at_the_positive: "the positive comes first, and below 0",
        turns_the_pulls_round: "your signs are turned round",
        puts_the_positive_last: "the first column is the positive's",
        forgets_the_chain_rule: "the chain rule divides once more",
        heats_the_softmax: "the softmax is one of similarities over the temperature",
        averages_the_pulls: "equals what autograd finds",
        sums_the_pulls_of_negatives: "should give (3, 6); your shape is (3, 2)",
        takes_the_wrong_softmax: "a guess among four",
        lets_the_softmax_overflow: "exp(900) is infinite",
    },
    "08.1": {
        swaps_the_shares: "decay 0 gives the new",
        adds_the_whole_new: "decay 1 keeps the old",
        averages: "decay 0 gives the new",
        changes_old: "the inputs stay as they are",
        changes_new_and_returns_a_copy: "the inputs stay as they are",
        returns_one_number: "the shape should be (2,)",
    },
    "08.2": {
        does_not_detach: "no gradient reaches the fake",
        swaps_the_labels: "are 1 and 0 swapped?",
        applies_the_sigmoid_twice: "is there a sigmoid before",
        sums_over_the_logits: "being right costs little",
        halves_the_sum: "added",
        sees_only_the_real: "added",
        detaches_the_discriminator: "the discriminator learns from both",
        cuts_everything_off: "cut off from the discriminator",
        returns_a_python_number: "should be a tensor with one number",
    },
    "08.3": {
        skips_the_warmup: "the first step is peak / warmup",
        begins_with_nothing: "the first step is peak / warmup",
        runs_the_cosine_from_step_0: "reaches the peak",
        forgets_the_half: "reaches the peak",
        falls_below_0: "half-way down is half the peak",
        falls_in_a_line: "equals the reference answer",
        divides_by_the_warmup: "ZeroDivisionError",
    },
    "09.1": {
        swaps_the_two_means: "first",
        averages_the_decibels_twice: "second",
        averages_the_errors_twice: "first",
        takes_a_fixed_range: "MSE 1, width 10",
        does_not_square_the_width: "for one slice",
        averages_roots: "averages roots",
        leaves_the_decibels_unaveraged: "two numbers",
    },
    "09.2": {
        draws_patients_only: "draw among the patient's slices too",
        draws_slices_only: "your interval has no width",
        pools_the_slices: "repeating a slice tells nothing",
        averages_all_slices_drawn: "the middle should be about 0.5",
        keeps_90_percent_of_patients_means: "the middle 95 % of resampled means",
        puts_the_high_end_of_patients_first: "the low one comes first",
        draws_patients_with_a_seed_of_its_own: "without a seed of your own",
        draws_patients_the_global_way: "draw with `rng` alone",
    },
    "09.3": {
        divides_by_k: "for one pixel, 3 and 5 HU",
        adds_both_variances: "for one pixel, 3 and 5 HU",
        looks_at_one_spread: "variances 32 and 2",
        averages_deviations: "variances 32 and 2",
        forgets_the_template: "where the template is 0",
        does_not_divide_by_the_spread: "for one pixel, 3 and 5 HU",
        divides_by_the_variance: "for one pixel, 3 and 5 HU",
        takes_the_size_of_d: "it should turn its sign",
    },
    "09.4": {
        multiplies_all_by_m: "for 0.001, 0.01 and 0.02",
        returns_them_sorted: "for 0.02, 0.001 and 0.01",
        lets_a_larger_p_get_ahead: "for 0.02, 0.021 and 0.022",
        exceeds_1: "for 0.7, 0.8 and 0.6",
        pays_from_the_largest: "for 0.001 among four",
        counts_from_m_plus_1: "for a single p of 0.03",
        permutes_the_wrong_way: "for 0.02, 0.001 and 0.01",
        corrects_by_false_discovery: "for 0.001, 0.01 and 0.02",
    },
    "10.1": {
        averages_the_slices: "one difference a slice",
        keeps_the_seeds_apart: "your shape is (3, 5)",
        returns_one_difference: "your shape is ()",
        subtracts_ours_from_theirs: "yours has the other sign",
        subtracts_the_mean_of_all: "better is above 0",
        takes_the_best_seed: "a hard slice cancels",
        pairs_the_seeds_one_by_one: "numbers of seeds may differ",
        subtracts_in_place: "does it use -= or +=",
    },
    "10.2": {
        puts_the_high_end_first: "the low one comes first",
        draws_without_replacement: "your interval has no width",
        takes_percentiles_of_the_values: "where values lie, not where their mean does",
        takes_percentages_for_shares: "your middle is",
        holds_90_percent: "it holds 95 %",
        goes_one_deviation_to_both_sides: "it holds 95 %",
        draws_fewer_than_there_are: "it holds 95 %",
        goes_1_96_deviations_to_both_sides: "take percentiles of the means",
        resamples_with_a_seed_of_its_own: "without a seed of your own",
        resamples_the_global_way: "draw with `rng` alone",
    },
    "10.3": {
        never_says_no: "expected 'not seen', yours says 'cannot be told'",
        takes_doubt_for_a_no: "expected 'cannot be told', yours says 'not seen'",
        judges_by_the_middle: "one difference lies on one side",
        returns_a_truth_value: "yours says True",
        forgets_what_is_wanted: "below 0 may be what is wanted",
        turns_the_sign_and_not_the_ends: "below 0 may be what is wanted",
        counts_0_as_above: "touches 0 tells nothing",
        is_content_with_one: "a claim is seen when all of it is",
        wants_every_no: "one clear no is enough",
    },
}
PLANTED = [(name, mistake) for name, planted in MISTAKES.items() for mistake in planted]


@pytest.mark.parametrize("exercise_id", IDS)
def test_the_reference_answer_is_right(exercise_id):
    verdict = exercises.judge(exercise_id, exercises.find(exercise_id).answer)
    assert verdict.status == "right", verdict.message


@pytest.mark.parametrize(("exercise_id", "mistake"), PLANTED)
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert MISTAKES[exercise_id][mistake] in verdict.message


@pytest.mark.parametrize("exercise_id", IDS)
def test_every_exercise_has_three_planted_mistakes_and_a_hint(exercise_id):
    assert len(MISTAKES[exercise_id]) >= 3
    assert exercises.find(exercise_id).hints


def test_an_other_right_way_to_write_it_is_right():
    def softplus_form(discriminator, real, fake):
        logits = discriminator(torch.cat([real, fake.detach()]))
        on_real, on_fake = logits.chunk(2)
        return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()

    def with_float32_targets(discriminator, real, fake):
        loss = torch.nn.BCEWithLogitsLoss()
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
        return loss(on_real, torch.ones(on_real.shape)) + loss(on_fake, torch.zeros(on_fake.shape))

    assert exercises.judge("08.2", softplus_form).status == "right"
    assert exercises.judge("08.2", with_float32_targets).status == "right"
    assert exercises.judge("08.1", lambda old, new, decay: torch.lerp(new, old, decay)).status == "right"
    assert exercises.judge("08.1", lambda old, new, decay: new + decay * (old - new)).status == "right"


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


def test_shares_and_guesses_may_be_found_in_other_ways():
    def fits_a_line(detail, residual):
        return np.linalg.lstsq(detail[:, None], residual, rcond=None)[0][0]

    def sorts(slices):
        ordered = torch.sort(torch.as_tensor(slices), 0).values
        return [slices.sum(0) / len(slices), ordered[len(slices) // 2]]  # of 8, the upper one of the middle

    def solves_for_a(noisy, smooth, wanted_hu):
        (x, c), (_, s) = np.cov(noisy, smooth, bias=True)
        return max(np.roots([x + s - 2 * c, 2 * (c - s), s - wanted_hu**2]).real)

    def tries_a_thousand(noisy, smooth, wanted_hu):
        shares = np.linspace(0, 1, 2001)
        spreads = [np.std(share * noisy + (1 - share) * smooth) for share in shares]
        return shares[np.argmin(np.abs(np.array(spreads) - wanted_hu))]

    assert exercises.judge("03.1", fits_a_line).status == "right"
    assert exercises.judge("03.2", sorts).status == "right"
    assert exercises.judge("03.3", solves_for_a).status == "right"
    assert exercises.judge("03.3", tries_a_thousand).status == "right"


def test_windows_and_hu_may_be_written_in_other_ways():
    def cuts_first(hu, level, width):
        black, white = level - width / 2, level + width / 2
        return (np.minimum(np.maximum(hu, black), white) - black) / (white - black)

    def as_a_tensor(stored, slope, intercept):
        return torch.tensor(stored.astype(float)) * slope + intercept

    def as_a_list(a_hu, b_hu, contrast):
        width = max(a_hu - b_hu, b_hu - a_hu) / contrast
        return [min(a_hu, b_hu) + width * contrast / 2, width]

    assert exercises.judge("01.1", as_a_tensor).status == "right"
    assert exercises.judge("01.2", cuts_first).status == "right"
    assert exercises.judge("01.3", as_a_list).status == "right"


def test_tokens_components_and_cosines_may_be_found_in_other_ways():
    def counts_patches(y, x, height, width, patch):
        tops = range(height % patch // 2, height - patch + 1, patch)
        lefts = range(width % patch // 2, width - patch + 1, patch)
        row = max(number for number, top in enumerate(tops) if top <= y)
        column = max(number for number, left in enumerate(lefts) if left <= x)
        return np.array([row, column, tops[row], lefts[column]])

    def by_eigenvectors_the_other_way_up(tokens, k):
        centred = (tokens - tokens.mean(0)).numpy()
        return -centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :k]

    def place_by_place(query, features):
        places = [F.cosine_similarity(query, token, dim=0) for token in features.flatten(1).T]
        return torch.stack(places).reshape(features.shape[1:])

    assert exercises.judge("04.1", counts_patches).status == "right"
    assert exercises.judge("04.2", by_eigenvectors_the_other_way_up).status == "right"
    assert exercises.judge("04.3", place_by_place).status == "right"


def test_the_answers_of_chapter_04_are_what_the_package_computes():
    from alden_lite import explain
    from alden_lite.alden import pvm
    from alden_lite.lessons.chapters import chapter_04

    slice_ = np.arange(333 * 271).reshape(333, 271)
    row, column, top, left = chapter_04.token_of_pixel(250, 130, 333, 271, 14)
    token = pvm.crop_to_grid(slice_, 14)[14 * row : 14 * row + 14, 14 * column : 14 * column + 14]
    assert token[0, 0] == slice_[top, left]
    assert slice_[250, 130] in token
    maps = torch.randn(1, 8, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cosines = chapter_04.cosine_map(maps[0, :, 2, 3], maps[0])
    torch.testing.assert_close(cosines, explain.similarity(maps[0, :, 2, 3], maps)[0])
    scores = chapter_04.principal_scores(maps[0].flatten(1).T, 3)
    grey = explain.ForegroundColours.fit(maps)(maps).flatten(0, 2)
    correlations = [np.corrcoef(scores[:, n], grey[:, n])[0, 1] for n in range(3)]
    assert np.abs(correlations).min() > 0.99  # grey is cut off at percentiles 1 and 99


def test_the_answers_of_chapter_01_are_what_the_package_computes():
    from alden_lite.evaluation import metrics
    from alden_lite.lessons.chapters import chapter_01
    from alden_lite.physics import hounsfield

    stored = np.arange(0, 4096, 5, dtype=np.uint16)
    hu = chapter_01.stored_to_hu(stored, 2, -1024)
    np.testing.assert_array_equal(hu, stack.hu_from_stored(stored, slope=2, intercept=-1024))
    np.testing.assert_array_equal(chapter_01.window(hu, 40, 400), hounsfield.window(hu, 40, 400))
    level, width = chapter_01.window_for(72, 36, 0.5)
    assert hounsfield.window(72.0, level, width) - hounsfield.window(36.0, level, width) == 0.5
    flat = torch.zeros(8, 8)
    assert chapter_01.psnr_db(9, -160, 240) == pytest.approx(metrics.psnr_db(flat + 9, flat))


def test_attention_rollout_and_path_may_be_written_in_other_ways():
    def loops_over_queries(q, k):
        rows = []
        for query in q:
            scores = (query * k).sum(-1) * q.shape[1] ** -0.5
            weights = (scores - scores.max()).exp()
            rows.append(weights / weights.sum())
        return torch.stack(rows)

    def from_the_last_block_down(attentions):
        rolled = torch.eye(len(attentions[0]), dtype=torch.float64)
        for attention in reversed(attentions):
            rolled = 0.5 * rolled + 0.5 * rolled @ attention
        return rolled

    def ends_on_the_right(f, x, baseline, steps):
        gradients = []
        for share in torch.linspace(1 / steps, 1, steps):
            point = torch.lerp(baseline, x, share.double()).detach().clone()
            point.requires_grad = True
            f(point).backward()
            gradients.append(point.grad)
        return torch.stack(gradients).mean(0) * (x - baseline)

    assert exercises.judge("05.1", loops_over_queries).status == "right"
    assert exercises.judge("05.2", from_the_last_block_down).status == "right"
    assert exercises.judge("05.3", ends_on_the_right).status == "right"


def test_the_answers_of_chapter_05_are_what_the_package_computes():
    from alden_lite import explain
    from alden_lite.lessons.chapters import chapter_05

    generator = torch.Generator().manual_seed(0)
    attentions = torch.randn(4, 2, 5, 5, generator=generator, dtype=torch.float64).softmax(-1)  # two heads
    averaged = list(attentions.mean(1))
    rolled = explain.rollout(list(attentions[:, None]))[0]
    torch.testing.assert_close(chapter_05.roll_out(averaged), rolled)
    slices = torch.randn(1, 1, 4, 4, generator=generator)
    shares = explain.integrated_gradients(lambda hu: (hu**3).sum((1, 2, 3)), slices, baseline_hu=-1.0)
    by_hand = chapter_05.share_out(lambda hu: (hu**3).sum(), slices, torch.full_like(slices, -1), 400)
    torch.testing.assert_close(by_hand, shares.map, rtol=1e-3, atol=1e-3)


def test_distance_contrast_and_pulls_may_be_written_in_other_ways():
    def marks_a_square(row, column, h, w, distance):
        far = np.ones((h, w), dtype=int)
        near = distance - 1
        far[max(row - near, 0) : row + near + 1, max(column - near, 0) : column + near + 1] = 0
        return far

    def asks_for_class_0(positive, negatives, temperature):
        logits = logits_of(positive, negatives, temperature)
        return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long), reduction="none")

    def lets_torch_differentiate(positive, negatives, temperature):
        together = torch.cat([positive[:, None], negatives], 1).requires_grad_()
        (-(together / temperature).log_softmax(1)[:, 0].sum()).backward()
        return together.grad

    assert exercises.judge("07.1", marks_a_square).status == "right"
    assert exercises.judge("07.2", asks_for_class_0).status == "right"
    assert exercises.judge("07.3", lets_torch_differentiate).status == "right"


def test_the_answers_of_chapter_07_are_what_the_package_computes():
    from alden_lite.alden.contrastive import discordant_places, semantic_contrastive_loss

    anchors, discordant = discordant_places(5, 7, places=35, count=35)
    for place, mask in zip(anchors.tolist(), discordant, strict=True):
        assert torch.equal(chapter_07.far_from(*divmod(place, 7), 5, 7, 2).flatten(), mask)
    maps = torch.randn(3, 1, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    f, y, x = F.normalize(maps[:, 0].flatten(2).mT, dim=-1)  # (16, 6) each
    far = torch.stack([chapter_07.far_from(*divmod(place, 4), 4, 4, 2).flatten() for place in range(16)])
    elsewhere = (f @ y.T).masked_fill(~far, -math.inf)
    negatives = torch.cat([elsewhere, (f * x).sum(1, keepdim=True)], 1)
    losses = chapter_07.info_nce((f * y).sum(1), negatives, 0.07)
    torch.testing.assert_close(losses.mean(), semantic_contrastive_loss(*maps))


def test_differences_intervals_and_verdicts_may_be_found_in_other_ways():
    def loops_over_slices(ours, theirs):
        return [np.mean(a) - np.mean(b) for a, b in zip(ours.T, theirs.T, strict=True)]

    def counts_how_often_each_is_drawn(values, rng):
        n = len(values)
        means = np.sort(rng.multinomial(n, np.full(n, 1 / n), size=4000) @ values / n)
        return [means[100], means[3899]]

    def by_scipy(values, rng):
        from scipy import stats

        found = stats.bootstrap((values,), np.mean, n_resamples=2000, rng=rng, method="percentile")
        return found.confidence_interval

    def with_arrays(intervals, wanted):
        ends = np.array(intervals) * np.array(wanted)[:, None]
        if (ends > 0).all():
            return "seen"
        return "not seen" if (ends < 0).all(axis=1).any() else "cannot be told"

    assert exercises.judge("10.1", loops_over_slices).status == "right"
    assert exercises.judge("10.2", counts_how_often_each_is_drawn).status == "right"
    assert exercises.judge("10.2", by_scipy).status == "right"
    assert exercises.judge("10.3", with_arrays).status == "right"


def test_other_right_ways_and_the_package_agree_with_chapter_09():
    from alden_lite.evaluation import lesions as detectability
    from alden_lite.evaluation import metrics
    from alden_lite.evaluation import statistics as comparison

    def by_logarithms(mse, width):
        return 20 * math.log10(width) - np.array([10 * np.log10(mse).mean(), 10 * np.log10(mse.mean())])

    def patient_by_patient(values, rng):
        n = len(values)
        drawn = [v[rng.integers(len(v), size=(3000, n, len(v)))].mean(2) for v in values]  # (3000, places)
        who, draw = rng.integers(n, size=(3000, n)), np.arange(3000)[:, None]
        return np.quantile(np.stack(drawn)[who, draw, np.arange(n)].mean(1), [0.025, 0.975])

    def by_loop(p):
        rank = {i: k for k, i in enumerate(sorted(range(len(p)), key=lambda i: p[i]))}
        paid = [(len(p) - rank[i]) * p[i] for i in range(len(p))]
        return [min(1, max(paid[j] for j in rank if rank[j] <= rank[i])) for i in range(len(p))]

    assert exercises.judge("09.1", by_logarithms).status == "right"
    assert exercises.judge("09.2", patient_by_patient).status == "right"
    assert exercises.judge("09.4", by_loop).status == "right"

    rng = np.random.default_rng(0)
    slices = 100 + rng.normal(0, 20, (3, 8, 8))
    mse = ((slices - 100) ** 2).mean((1, 2))
    each = [metrics.psnr_db(torch.tensor(one), torch.full((8, 8), 100.0).double()) for one in slices]
    assert chapter_09.psnr_two_ways(mse, 400.0)[0] == pytest.approx(np.mean(each))
    values = [rng.normal(mean, 1, 5) for mean in (0, 1, 2, 3, 5, 8)]
    ends = comparison.interval_by_patient(np.concatenate(values), np.repeat(np.arange(6), 5))
    assert chapter_09.patient_interval(values, rng) == pytest.approx(ends, abs=0.3)
    present, absent, template = rng.normal(1, 2, (6, 4, 4)), rng.normal(0, 1, (6, 4, 4)), rng.random((4, 4))
    found = detectability.npw(*map(torch.tensor, (present, absent, template))).d_prime
    assert chapter_09.observer(present, absent, template) == pytest.approx(found)
    p = rng.random(7) ** 3
    named = comparison.holm({str(n): one for n, one in enumerate(p)})
    assert chapter_09.holm_adjusted(p) == pytest.approx([*named.values()])


def test_the_answers_of_chapter_10_are_what_the_package_computes():
    from alden_lite.evaluation.studies.ablations import Result, against

    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(32, 1, (3, 40)), rng.normal(31, 1, (2, 40))
    results = [Result("ours", seed, "", {"psnr_db": list(row)}) for seed, row in enumerate(ours)]
    results += [Result("theirs", seed, "", {"psnr_db": list(row)}) for seed, row in enumerate(theirs)]
    mean, ends = against(results, "ours", "theirs", "psnr_db")
    differences = chapter_10.paired_difference(ours, theirs)
    assert differences.mean() == pytest.approx(mean)
    interval = chapter_10.bootstrap_interval(differences, np.random.default_rng(1))
    assert interval == pytest.approx(ends, abs=0.05)  # another 2000 resamples, and theirs corrects for bias


def test_receptive_fields_losses_and_questions_may_be_written_in_other_ways():
    def from_the_output_down(layers):
        size = 1
        for kernel, stride in reversed(layers):
            size = (size - 1) * stride + kernel
        return size

    def by_torch(real, fake):
        return bce(real, 1.0) + bce(fake, 0.0), bce(fake, 1.0)

    def fused(asking, asked, w_q, w_k, w_v):
        one = (asking @ w_q)[None], (asked @ w_k)[None], (asked @ w_v)[None]
        return F.scaled_dot_product_attention(*one)[0]

    assert exercises.judge("06.1", from_the_output_down).status == "right"
    assert exercises.judge("06.2", by_torch).status == "right"
    assert exercises.judge("06.3", fused).status == "right"


def test_the_answers_of_chapter_06_are_what_the_package_computes():
    from alden_lite.alden import discriminator as gan

    plain = gan.AnatomyAwareDiscriminator(semantic_channels=None, grain=None)
    layers = [(m.kernel_size[0], m.stride[0]) for m in plain.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted(layers) == sorted(chapter_06.DISCRIMINATOR)
    image = torch.randn(1, 1, 160, 160, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain(image)[0, 0, 10, 10].backward()
    columns = image.grad[0, 0].abs().sum(0).nonzero()
    assert chapter_06.pixels_seen(chapter_06.DISCRIMINATOR) == columns.max() - columns.min() + 1
    real, fake = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    d_loss, g_loss = chapter_06.adversarial_losses(real, fake)
    torch.testing.assert_close(d_loss, gan.discriminator_loss(real, fake))
    torch.testing.assert_close(g_loss, gan.generator_loss(fake))


def test_the_expected_noise_of_the_exercise_is_the_scanners():
    from alden_lite.lessons.chapters.chapter_02 import noise_at_dose
    from alden_lite.physics.noise import theory_sigma
    from alden_lite.physics.scanner import Scanner, line_variance

    scanner = Scanner.covering(256, 1.4, electronic_noise=5.0)
    low, full = (theory_sigma(scanner, line_variance(n, 5.0)) for n in (60.0, 600.0))
    assert noise_at_dose(full, 0.1, 600.0, 5.0) == pytest.approx(low)


def test_the_learning_rate_of_the_exercise_is_the_one_of_the_training():
    from alden_lite.alden.training import learning_rate as of_training
    from alden_lite.lessons.chapters.chapter_08 import learning_rate

    for step in (0, 3, 9, 10, 11, 60, 100):
        plan = {"steps": 100, "warmup": 10, "peak": 1e-4}
        assert learning_rate(step, **plan) == pytest.approx(of_training(step, **plan), abs=1e-12)


# Functions as they came. As text, as in a cell: a formatter would tidy them away.


def defined(body):
    """The function `answer(old, new, decay)` with this body, its source readable as in a notebook."""
    source = "def answer(old, new, decay):\n" + textwrap.indent(body, "    ") + "\n"
    file = f"<cell {len(linecache.cache)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names = {}
    exec(compile(source, file, "exec"), names)
    return names["answer"]


STUBS = [
    "...",
    "pass",
    "return None",
    "return",
    "raise NotImplementedError",
    "raise NotImplementedError('your turn')",
    '"""Your turn."""',
    '"""Your turn."""\n# decay * old + ...\n...',
    "share = ...\nreturn share",
    "return ...",
    "assert old.shape == new.shape\n...",
    "if decay > 1:\n    raise NotImplementedError('no')\nraise NotImplementedError",
]


@pytest.mark.parametrize("stub", STUBS)
def test_a_function_as_it_came_is_not_attempted_yet(stub, capsys):
    assert lessons.check("08.1", defined(stub)) is None
    assert capsys.readouterr().out == "08.1 not attempted yet\n"


@pytest.mark.parametrize("exercise_id", IDS)
def test_every_exercise_knows_its_stub(exercise_id):
    assert exercises.judge(exercise_id, defined("...")).status == "not attempted yet"


def test_an_answer_above_the_dots_counts():
    answer = defined("return decay * old + (1 - decay) * new\n...")
    assert exercises.judge("08.1", answer).status == "right"


def test_an_answer_without_source_is_tried():
    names = {}
    exec("def answer(old, new, decay): return decay * old + (1 - decay) * new", names)
    assert exercises.judge("08.1", names["answer"]).status == "right"


# Whatever a learner hands over


def forgets_to_return(old, new, decay):
    decay * old + (1 - decay) * new


def fails(old, new, decay):
    return old.shap


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (forgets_to_return, "does it end with `return ...`?"),
        (fails, "your function raised AttributeError"),
        (lambda old: old, "your function raised TypeError"),
        (lambda old, new, decay: "seven", "should return numbers, it returned str"),
        (lambda old, new, decay: torch.full_like(old, math.nan), "yours gives nan"),
        (torch.tensor(3.0), "hand over the function itself"),
        (None, "hand over the function itself"),
    ],
)
def test_a_wrong_answer_never_raises(answer, text, capsys):
    lessons.check("08.1", answer)
    out = capsys.readouterr().out
    assert out.startswith("08.1 ✗") and text in out


def test_an_answer_that_returns_something_odd_is_wrong():
    class Odd:
        def __array__(self, *_, **__):
            raise RuntimeError("not today")

    verdict = exercises.judge("08.1", lambda old, new, decay: Odd())
    assert verdict.status == "wrong"
    assert "cannot be used: RuntimeError: not today" in verdict.message


def test_a_check_leaves_the_random_numbers_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    for exercise_id in IDS:
        exercises.judge(exercise_id, exercises.find(exercise_id).answer)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize("name", ["08.9", "99.1", "8", "", None])
@pytest.mark.parametrize("call", [lessons.hint, lessons.solution, lambda name: lessons.check(name, 1)])
def test_an_unknown_exercise_is_an_error_that_lists_the_known(call, name):
    with pytest.raises(ValueError, match=r"there are 00\.1, .*08\.1, 08\.2, 08\.3"):
        call(name)


def test_hints_come_one_after_the_other_and_end_with_the_solution(capsys, monkeypatch):
    monkeypatch.setattr(exercises, "_hints_given", {})
    for _ in range(4):
        lessons.hint("00.1")
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16] for line in lines[:3]] == [f"00.1 hint {n} of 3"[:16] for n in (1, 2, 3)]
    assert 'lessons.solution("00.1")' in lines[3]
    assert lines[4] == lines[2]


def test_the_solution_is_the_source_of_the_answer(capsys):
    lessons.solution("08.1")
    out = capsys.readouterr().out
    assert out.startswith("def exponential_moving_average(")
    assert "return decay * old + (1 - decay) * new" in out


# Records


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (4.1, "x = 4.1"),
        (1 / 3, "x = 0.333333"),
        (20, "x = 20"),
        (True, "x = True"),
        ("DINOv2", "x = DINOv2"),
        (np.float64(0.5), "x = 0.5"),
    ],
)
def test_a_record_prints_its_name_and_value(value, line, capsys):
    assert lessons.record("x", value) is None
    assert capsys.readouterr().out == line + "\n"


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("psnr gain", 1.0, ValueError, "identifier"),
        ("", 1.0, ValueError, "identifier"),
        (3, 1.0, ValueError, "identifier"),
        ("x", math.nan, ValueError, "only finite"),
        ("x", -math.inf, ValueError, "only finite"),
        ("x", torch.tensor(1.0), TypeError, r"float\(\.\.\.\)"),
        ("x", np.float32(1.0), TypeError, "float32"),
        ("x", None, TypeError, "NoneType"),
        ("x", [1], TypeError, "list"),
    ],
)
def test_a_record_that_cannot_be_held_to_a_value_is_refused(name, value, error, text):
    with pytest.raises(error, match=text):
        lessons.record(name, value)


def test_in_ipython_a_record_carries_its_value_as_data(monkeypatch):
    shown = []
    monkeypatch.setattr(records, "_in_ipython", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw: shown.append(bundle))
    lessons.record("rmse_hu", np.float64(9.25))
    cell = {"outputs": [{"data": shown[0]}, {"text": "stream"}]}
    assert shown[0]["text/plain"] == "rmse_hu = 9.25"
    assert records.payloads([cell, {}], records.RECORD_MIME) == [{"name": "rmse_hu", "value": 9.25}]


def test_outside_ipython_nothing_is_displayed(monkeypatch):
    shell = SimpleNamespace(get_ipython=lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "IPython", shell)
    assert not records._in_ipython()


# Settings


def test_every_chapter_has_the_three_modes():
    for chapter, modes in SETTINGS.items():
        assert list(modes) == ["fast", "laptop", "full"], chapter
        assert all(isinstance(lessons.parameters(chapter, mode), Settings) for mode in modes)


def test_unknown_modes_and_chapters_are_named():
    with pytest.raises(ValueError, match="choose one of fast, laptop, full"):
        lessons.parameters("08", "quick")
    with pytest.raises(ValueError, match="no settings for chapter .77.; there are 00, .*08"):
        lessons.parameters("77", "fast")
