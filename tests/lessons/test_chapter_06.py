"""Chapter 06's exercises: mistakes that their checks must find, and right answers they must not refuse."""

import math

import pytest
import torch
from planted import planted
from torch.nn import functional as F

from alden_lite.alden import discriminator
from alden_lite.lessons import exercises
from alden_lite.lessons.chapters import chapter_06

# 06.1


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


# 06.2


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


# 06.3


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


MISTAKES = {
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
}


@pytest.mark.parametrize(("exercise_id", "mistake", "text"), planted(MISTAKES))
def test_a_planted_mistake_is_found_and_named(exercise_id, mistake, text):
    verdict = exercises.judge(exercise_id, mistake)
    assert verdict.status == "wrong"
    assert text in verdict.message


def test_receptive_fields_losses_and_questions_may_be_written_in_other_ways():
    def from_the_output_down(layers):
        size = 1
        for kernel, stride in reversed(layers):
            size = (size - 1) * stride + kernel
        return size

    def bce(logits, target):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def by_torch(real, fake):
        return bce(real, 1.0) + bce(fake, 0.0), bce(fake, 1.0)

    def fused(asking, asked, w_q, w_k, w_v):
        one = (asking @ w_q)[None], (asked @ w_k)[None], (asked @ w_v)[None]
        return F.scaled_dot_product_attention(*one)[0]

    assert exercises.judge("06.1", from_the_output_down).status == "right"
    assert exercises.judge("06.2", by_torch).status == "right"
    assert exercises.judge("06.3", fused).status == "right"


def test_the_answers_of_chapter_06_are_what_the_package_computes():
    plain = discriminator.AnatomyAwareDiscriminator(semantic_channels=None, grain=None)
    layers = [(m.kernel_size[0], m.stride[0]) for m in plain.modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted(layers) == sorted(chapter_06.DISCRIMINATOR)
    image = torch.randn(1, 1, 160, 160, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plain(image)[0, 0, 10, 10].backward()
    columns = image.grad[0, 0].abs().sum(0).nonzero()
    assert chapter_06.pixels_seen(chapter_06.DISCRIMINATOR) == columns.max() - columns.min() + 1
    real, fake = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    d_loss, g_loss = chapter_06.adversarial_losses(real, fake)
    torch.testing.assert_close(d_loss, discriminator.discriminator_loss(real, fake))
    torch.testing.assert_close(g_loss, discriminator.generator_loss(fake))
