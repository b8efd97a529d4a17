"""One step, the loop, checkpoints. Tiny made-up slices, the real DINOv2."""

import copy
import json
import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import softplus

from alden_lite.alden import training as training_module
from alden_lite.alden.contrastive import semantic_contrastive_loss
from alden_lite.alden.discriminator import discriminator_loss, generator_loss
from alden_lite.alden.generator import REDCNN, UNet
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.alden.training import Recipe, Training
from alden_lite.commands import train as train_command
from alden_lite.data.pairs import Pairs
from alden_lite.engine import checkpoint as checkpoint_module
from alden_lite.engine.checkpoint import (
    CheckpointError,
    file_sha256,
    flat_state,
    has_checkpoints,
    load_weights,
    read_card,
    read_newest,
    weights_path,
    write_checkpoint,
    write_weights,
)
from alden_lite.engine.crops import Batch, CropBank
from alden_lite.engine.loop import learning_rate
from alden_lite.engine.speed import for_crops
from alden_lite.physics.hounsfield import denormalise

TINY = Recipe(steps=6, batch=2, crop=56, bank=4, reuse=2, warmup=0, learning_rate=1e-3, accelerator="cpu")
PLAIN = replace(TINY, adversarial_weight=0.0, contrastive_weight=0.0)


@pytest.fixture(scope="module")
def pvm() -> PVM:
    return load_pvm("dinov2_vits14", taps=TINY.taps)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.normal(40, 40, (3, 8, 8)), np.ones((16, 16)))
    normal = smooth + rng.normal(0, 8, smooth.shape)
    low = normal + rng.normal(0, 30, smooth.shape)
    return Pairs(low.astype(np.int16), normal.astype(np.int16), np.full(3, 0.25), np.arange(3))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: equal bit for bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(training: Training) -> dict[str, torch.Tensor]:
    return flat_state(training._networks(), training._optimisers())


def run(training: Training, until: int | None = None) -> Training:
    for _ in training.run(until, report_every=2, progress=False):
        pass
    return training


def test_a_step_is_the_equations_of_the_module(pairs: Pairs, pvm: PVM) -> None:
    training = Training(TINY, pairs, pvm=pvm)
    batch = training.bank.at(0)
    generator, discriminator = training.generator.module, training.discriminator.module
    denoised = generator(batch.low)
    semantics = [batch.normal_maps[t] for t in (4, 8, 12)]
    y, x, fake = (denormalise(t) for t in (batch.normal, batch.low, denoised.detach()))
    # Spectral norm makes a power iteration with every pass: look at a copy.
    d = copy.deepcopy(discriminator)
    both = d(torch.cat([y, fake]), [s.repeat(2, 1, 1, 1) for s in semantics])
    expected_d = discriminator_loss(*both.chunk(2))
    phi = {
        name: dict(zip(pvm.taps, pvm(image), strict=True))[12]
        for name, image in (("y", y), ("x", x), ("f", fake))
    }
    losses = training.step(batch)
    target = 0.85 * batch.normal + 0.15 * batch.low
    assert losses["pixel"] == pytest.approx((denoised - target).abs().mean().item())
    assert losses["discriminator"] == pytest.approx(expected_d.item(), rel=1e-5)
    assert losses["contrastive"] == pytest.approx(
        semantic_contrastive_loss(phi["f"], phi["y"], phi["x"]).item(),
        rel=1e-2,  # other negatives are drawn
    )
    # G's adversarial loss comes from D as updated: it is finite and near undecided.
    assert losses["adversarial"] == pytest.approx(generator_loss(torch.zeros(1)).item(), abs=0.5)


def test_a_step_updates_d_then_g_by_the_gradients_of_the_equations(pairs: Pairs) -> None:
    recipe = replace(
        TINY,
        pixel_weight=2.0,
        keep=0.4,
        adversarial_weight=0.3,
        contrastive_weight=0.7,
        temperature=0.2,
        query="semantic",
        noise_term=False,
        contrastive_form="sum",
        clip=1e9,
        average=0.5,
        warmup=4,
    )
    training = Training(recipe, pairs)
    assert training.pvm is not None
    training.discriminator.eval()  # spectral norm holds still
    batch = training.bank.at(0)
    start = copy.deepcopy(training.generator.module)
    g, d = copy.deepcopy(start), copy.deepcopy(training.discriminator.module)
    y, semantics = denormalise(batch.normal), [batch.normal_maps[t] for t in (4, 8, 12)]
    rate = learning_rate(0, steps=6, warmup=4, peak=1e-3)
    d_rate = learning_rate(0, steps=6, warmup=4, peak=2e-4)
    d_optimiser = torch.optim.Adam(d.parameters(), lr=d_rate, betas=(0.5, 0.999))
    fake = denormalise(g(batch.low))
    d_loss = softplus(-d(y, semantics)).mean() + softplus(d(fake.detach(), semantics)).mean()
    d_loss.backward()
    d_optimiser.step()
    maps = dict(zip(training.pvm.taps, training.pvm(fake), strict=True))[12]
    scl = semantic_contrastive_loss(
        maps, batch.normal_maps[12], batch.low_maps[12], temperature=0.2, noise_term=False, form="sum"
    )  # a grid of 4 x 4 has fewer than M negatives: all are used, nothing is left to chance
    pixel = (g(batch.low) - (0.6 * batch.normal + 0.4 * batch.low)).abs().mean()
    adversarial = softplus(-d(fake, semantics)).mean()
    gradients = torch.autograd.grad(2.0 * pixel + 0.3 * adversarial + 0.7 * scl, list(g.parameters()))
    losses = training.step(batch)
    expected = {"discriminator": d_loss, "pixel": pixel, "adversarial": adversarial, "contrastive": scl}
    assert losses == pytest.approx({name: loss.item() for name, loss in expected.items()}, rel=1e-4)
    for ours, theirs in zip(training.discriminator.module.parameters(), d.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    trained = list(training.generator.module.parameters())
    for now, gradient in zip(trained, gradients, strict=True):
        # A unit of D next to a kink may see it from the other side: single entries may be off.
        torch.testing.assert_close(
            now.grad, gradient, atol=1e-3 * float(gradient.abs().max()) + 1e-6, rtol=1e-2
        )
    # Adam's first step is the rate times the gradient's sign; the average follows fast at first.
    last, before = trained[-2], list(start.parameters())[-2]
    torch.testing.assert_close((last - before).abs().max(), torch.tensor(rate), rtol=1e-2, atol=0)
    mean = list(training.averaged.parameters())[-2]
    torch.testing.assert_close(mean, before.lerp(last, 0.9), atol=1e-7, rtol=0)


def test_gradients_are_clipped_and_broken_ones_stop_the_run(pairs: Pairs, tmp_path: Path) -> None:
    training = Training(replace(PLAIN, clip=1e-3), pairs, tmp_path)
    training.step()
    gradients = [p.grad for p in training.generator.module.parameters() if p.grad is not None]
    assert torch.stack([g.norm() for g in gradients]).norm().item() <= 1.01e-3
    training.generator.module.leave[0].bias.register_hook(lambda g: g * torch.nan)  # type: ignore[index, union-attr]
    before = {k: t.clone() for k, t in training.generator.module.state_dict().items()}
    with pytest.raises(FloatingPointError, match="gradient of generator is not finite"):
        training.step()
    assert all(torch.equal(before[k], t) for k, t in training.generator.module.state_dict().items())


def test_a_resumed_run_keeps_its_recipe_and_its_pvm(pairs: Pairs, pvm: PVM, tmp_path: Path) -> None:
    run(Training(TINY, pairs, tmp_path, pvm=pvm), 2)
    with pytest.raises(ValueError, match="keeps its recipe"):
        Training.resume(tmp_path, pairs, pvm=pvm, machine={"learning_rate": 9.0})
    with pytest.raises(CheckpointError, match="another PVM"):
        Training.resume(tmp_path, pairs, pvm=load_pvm("dinov2_vits14", taps=TINY.taps, windows="lung"))
    rounded = Training.resume(tmp_path, pairs, pvm=pvm, machine={"precision": "bf16-mixed"})
    assert rounded.recipe.precision == "bf16-mixed"


def test_a_log_line_cut_off_by_a_crash_does_not_stop_a_resume(pairs: Pairs, tmp_path: Path) -> None:
    run(Training(PLAIN, pairs, tmp_path), 2)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "sec')
    assert Training.resume(tmp_path, pairs).done == 2
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2]


def test_the_pvm_never_changes_and_gradients_reach_g_through_it(pairs: Pairs, pvm: PVM) -> None:
    before = {k: t.clone() for k, t in pvm.state_dict().items()}
    only_scl = replace(
        TINY, pixel_weight=0.0, adversarial_weight=0.0, contrastive_weight=1.0, contrastive_taps=(12,)
    )
    training = Training(only_scl, pairs, pvm=load_pvm("dinov2_vits14", taps=(12,)))
    training.step()
    moved = [p.grad is not None and bool(p.grad.any()) for p in training.generator.module.leave.parameters()]
    assert all(moved)
    run(Training(TINY, pairs, pvm=pvm), 2)
    assert all(torch.equal(before[k], t) for k, t in pvm.state_dict().items())
    assert all(p.grad is None for p in pvm.parameters())


def test_cached_features_are_the_pvms_own(pairs: Pairs, pvm: PVM) -> None:
    batch = Training(TINY, pairs, pvm=pvm).bank.at(3)
    fresh = dict(zip(pvm.taps, pvm(denormalise(batch.normal)), strict=True))
    for tap, maps in batch.normal_maps.items():
        torch.testing.assert_close(maps, fresh[tap], atol=1e-4, rtol=1e-4)
    low = dict(zip(pvm.taps, pvm(denormalise(batch.low)), strict=True))
    torch.testing.assert_close(batch.low_maps[12], low[12], atol=1e-4, rtol=1e-4)


def test_low_dose_maps_are_kept_for_the_contrastive_loss_alone(pairs: Pairs, pvm: PVM) -> None:
    bank = Training(replace(TINY, contrastive_taps=(8,)), pairs, pvm=pvm).bank.crops(0)
    assert sorted(bank.normal_maps) == [4, 8, 12]
    assert sorted(bank.low_maps) == [8]


def test_the_copy_for_crops_sees_what_the_pvm_sees(pvm: PVM) -> None:
    hu = 40 + 60 * torch.randn(2, 1, 56, 42, generator=torch.Generator().manual_seed(0))

    def maps_and_slope(network: PVM, *, autocast: bool) -> list[torch.Tensor]:
        image = hu.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            maps = network(image)
        (maps[0].float().square().mean() + maps[2].float().square().mean()).backward()
        assert image.grad is not None
        return [*(each.detach().float() for each in maps), image.grad]

    exact = maps_and_slope(pvm, autocast=False)
    for fused in (False, True):
        copied = maps_and_slope(for_crops(pvm, rounded=False, fused=fused), autocast=False)
        for theirs, ours in zip(exact, copied, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=0)
    rough = maps_and_slope(pvm, autocast=True)
    rounded = maps_and_slope(for_crops(pvm, rounded=True, fused=False), autocast=True)
    for true, theirs, ours in zip(exact, rough, rounded, strict=True):
        assert (ours - true).norm() < 3 * (theirs - true).norm()  # attention's logits are rounded, too


def test_the_copy_for_crops_shares_weights_and_leaves_the_pvm_alone(pvm: PVM) -> None:
    before = [type(module).__name__ for module in pvm.modules()]
    copied = for_crops(pvm, rounded=False, fused=False)
    assert {p.data_ptr() for p in copied.parameters()} == {p.data_ptr() for p in pvm.parameters()}
    rounded = for_crops(pvm, rounded=True, fused=False)
    assert not any(parameter.requires_grad for parameter in rounded.parameters())
    halves = sum(p.numel() for p in rounded.parameters() if p.dtype == torch.bfloat16)
    assert halves > 0.9 * sum(p.numel() for p in pvm.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in pvm.parameters())
    assert [type(module).__name__ for module in pvm.modules()] == before
    assert all(module.fused_attn for module in pvm.modules() if hasattr(module, "fused_attn"))


def test_a_pvm_asked_for_some_taps_stops_at_the_last_of_them(pvm: PVM) -> None:
    hu = 40 + 60 * torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    seen: list[int] = []
    blocks: list[torch.nn.Module] = list(pvm.backbone.blocks)  # type: ignore[arg-type]
    handles = [
        block.register_forward_hook(lambda *_, number=number: seen.append(number))
        for number, block in enumerate(blocks, start=1)
    ]
    (middle,) = pvm(hu, taps=(8,))
    for handle in handles:
        handle.remove()
    assert seen == list(range(1, 9))
    assert torch.equal(middle, pvm(hu)[1])
    for foreign in ((), (9,), (8, 4), (4, 4)):
        with pytest.raises(ValueError, match="this PVM has taps"):
            pvm(hu, taps=foreign)


def test_the_contrastive_loss_can_look_at_some_crops_of_a_batch(pairs: Pairs) -> None:
    recipe = replace(TINY, batch=4, adversarial_weight=0.0, contrastive_crops=2)
    training = Training(recipe, pairs)
    assert training.pvm is not None
    batch = training.bank.at(0)
    first_and_third = torch.tensor([0, 2])
    fake = training.pvm(denormalise(training.generator(batch.low[first_and_third])))[0]
    expected = semantic_contrastive_loss(  # a grid of 4 x 4: all negatives, nothing left to chance
        fake, batch.normal_maps[12][first_and_third], batch.low_maps[12][first_and_third]
    )
    assert training.step(batch)["contrastive"] == pytest.approx(expected.item(), rel=1e-4)
    for impossible in (3, -1, 8):
        with pytest.raises(ValueError, match="contrastive_crops"):
            replace(recipe, contrastive_crops=impossible)
    with pytest.raises(ValueError, match="all devices"):
        replace(recipe, contrastive_crops=1, devices=2)


def test_every_crop_of_a_bank_is_seen_once_a_pass(pairs: Pairs) -> None:
    training = Training(PLAIN, pairs)
    seen = torch.cat([training.bank.at(step).low for step in range(2)])
    bank = training.bank.crops(0).low
    assert sorted(seen.flatten(1).sum(1).tolist()) == sorted(bank.flatten(1).sum(1).tolist())
    assert not torch.equal(training.bank.at(0).low, training.bank.at(4).low)  # a new bank


def test_training_lowers_the_error(pairs: Pairs) -> None:
    training = Training(replace(PLAIN, steps=200, batch=4, learning_rate=1e-3), pairs)
    reports = list(training.run(report_every=20, progress=False))
    assert reports[-1].losses["pixel"] < 0.8 * reports[0].losses["pixel"]
    assert [r.step for r in reports] == list(range(20, 201, 20))


@pytest.mark.parametrize("recipe", [PLAIN, TINY], ids=["l1", "alden"])
def test_an_interrupted_run_ends_bit_for_bit_where_an_unbroken_one_does(
    recipe: Recipe, pairs: Pairs, pvm: PVM, tmp_path: Path
) -> None:
    whole = run(Training(recipe, pairs, tmp_path / "whole", pvm=pvm if recipe is TINY else None))
    run(Training(recipe, pairs, tmp_path / "broken", pvm=pvm if recipe is TINY else None), 4)
    resumed = Training.resume(tmp_path / "broken", pairs, pvm=pvm if recipe is TINY else None)
    assert resumed.done == 4
    run(resumed)
    one, other = weights(whole), weights(resumed)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "broken")]
    losses = [[{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in log] for log in logs]
    assert losses[0] == losses[1]


def test_a_run_that_is_stopped_saves_and_goes_on_as_if_it_had_not_been(pairs: Pairs, tmp_path: Path) -> None:
    whole = run(Training(PLAIN, pairs))
    training = Training(PLAIN, pairs, tmp_path)
    steps = []
    for report in training.run(report_every=1, progress=False):
        steps.append(report.step)
        if report.step == 3:
            training.stop()
    assert steps == [1, 2, 3]
    resumed = run(Training.resume(tmp_path, pairs))
    run(training)  # the same object can go on, too
    for other in (resumed, training):
        assert all(torch.equal(t, weights(other)[name]) for name, t in weights(whole).items())


def test_a_stop_between_reports_gives_one_more(pairs: Pairs, tmp_path: Path) -> None:
    training = Training(PLAIN, pairs, tmp_path)
    training.generator.register_forward_hook(lambda *_: training.stop() if training.done == 2 else None)
    assert [report.step for report in training.run(report_every=5, progress=False)] == [3]
    assert (tmp_path / "step_000003").is_dir()
    asked_before = Training(PLAIN, pairs)
    asked_before.stop()
    assert list(asked_before.run(progress=False)) == []


def test_a_new_run_forgets_the_log_of_one_without_a_checkpoint(pairs: Pairs, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 2, "pixel": 9.0}\n')
    run(Training(PLAIN, pairs, tmp_path), 2)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_a_checkpoint_says_where_it_comes_from(pairs: Pairs, pvm: PVM, tmp_path: Path) -> None:
    folder = run(Training(TINY, pairs, tmp_path, pvm=pvm), 2).save()
    about = json.loads((folder / "recipe.json").read_text())
    assert about["recipe"]["contrastive_weight"] == TINY.contrastive_weight
    assert about["pvm"]["sha256"] == pvm.weights_sha256
    assert about["pvm"]["taps"] == [4, 8, 12]
    assert about["pvm"]["windows"] == ["L 50 W 400 HU"]
    assert about["versions"]["torch"] == torch.__version__
    assert "clinical" in about["notice"]


def test_only_the_newest_checkpoints_are_kept(pairs: Pairs, tmp_path: Path) -> None:
    run(Training(PLAIN, pairs, tmp_path))
    assert sorted(p.name for p in tmp_path.glob("step_*")) == ["step_000004", "step_000006"]


def test_a_save_cut_off_half_way_is_not_taken_for_a_checkpoint(pairs: Pairs, tmp_path: Path) -> None:
    run(Training(PLAIN, pairs, tmp_path), 2)
    half = tmp_path / ".step_left"
    half.mkdir()
    (half / "state.safetensors").write_bytes(b"half")
    resumed = Training.resume(tmp_path, pairs)
    assert resumed.done == 2
    run(resumed, 4)
    assert not half.exists()


def test_damaged_or_foreign_checkpoints_are_refused_and_kept(pairs: Pairs, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Training.resume(tmp_path / "empty", pairs)
    run(Training(PLAIN, pairs, tmp_path), 2)
    other = Pairs(pairs.low + np.int16(1), pairs.normal, pairs.dose, pairs.slices)
    with pytest.raises(CheckpointError, match="other pairs"):
        Training.resume(tmp_path, other)
    recipe = tmp_path / "step_000002" / "recipe.json"
    whole = recipe.read_text()
    recipe.write_text(json.dumps({k: v for k, v in json.loads(whole).items() if k != "pvm"}))
    with pytest.raises(CheckpointError, match=r"damaged: it lacks \['pvm'\]"):
        Training.resume(tmp_path, pairs)
    recipe.write_text(whole)
    state = tmp_path / "step_000002" / "state.safetensors"
    cut = state.read_bytes()[:-100]
    state.write_bytes(cut)
    with pytest.raises(CheckpointError, match="damaged"):
        Training.resume(tmp_path, pairs)
    assert state.read_bytes() == cut


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(
    pairs: Pairs, tmp_path: Path
) -> None:
    training = run(Training(PLAIN, pairs, tmp_path), 2)
    kept = load_file(tmp_path / "step_000002" / "state.safetensors")
    with torch.no_grad():
        next(training.generator.module.parameters()).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="step 2"):
        run(training)
    after = load_file(tmp_path / "step_000002" / "state.safetensors")
    assert all(torch.equal(kept[k], after[k]) for k in kept)
    assert not (tmp_path / "step_000004").exists()


def test_an_exported_generator_loads_and_tells_its_story(pairs: Pairs, tmp_path: Path) -> None:
    training = run(Training(PLAIN, pairs))
    file = training.export(tmp_path / "small.safetensors", data="made up")
    fresh = UNet()
    load_weights(fresh, file)
    averaged = training.averaged.state_dict()
    assert all(torch.equal(t, averaged[k]) for k, t in fresh.state_dict().items())
    assert read_card(file)["data"] == "made up"
    assert read_card(file)["recipe"]["steps"] == 6
    warm = Training(replace(PLAIN, warm_start=str(file)), pairs)
    assert torch.equal(warm.averaged.enter[1][0].weight, averaged["enter.1.0.weight"])  # type: ignore[index, union-attr]


def test_weights_of_another_architecture_or_half_a_file_are_refused(pairs: Pairs, tmp_path: Path) -> None:
    file = run(Training(PLAIN, pairs), 2).export(tmp_path / "unet.safetensors")
    other = REDCNN()
    before = {k: t.clone() for k, t in other.state_dict().items()}
    with pytest.raises(CheckpointError, match="weights of a REDCNN.*'unet'"):
        load_weights(other, file)
    assert all(torch.equal(before[k], t) for k, t in other.state_dict().items())
    half = tmp_path / "half.safetensors"
    half.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a complete"):
        load_weights(UNet(), half)
    with pytest.raises(CheckpointError, match="choose from"):
        weights_path("alden2")
    save_file({"w": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="names or shapes differ"):
        load_weights(UNet(), tmp_path / "foreign.safetensors")


def test_a_warm_start_can_leave_some_of_the_input_in_and_a_resumed_run_does_not_do_so_twice(
    pairs: Pairs, tmp_path: Path
) -> None:
    recipe = replace(PLAIN, warm_start="l1", warm_keep=0.25)
    start, blend = Training(replace(recipe, warm_keep=0.0), pairs), Training(recipe, pairs, tmp_path)
    low = torch.from_numpy(pairs.low[:1, None].astype(np.float32))
    mixed = 0.25 * low + 0.75 * start.denoise(low)
    torch.testing.assert_close(blend.denoise(low), mixed, atol=1e-2, rtol=0)
    blend.save()
    resumed = Training.resume(tmp_path, pairs)
    assert resumed.recipe == recipe
    torch.testing.assert_close(resumed.denoise(low), blend.denoise(low), atol=0, rtol=0)


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [learning_rate(s, steps=100, warmup=10, peak=1.0) for s in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_impossible_recipes_are_refused(pairs: Pairs, pvm: PVM) -> None:
    with pytest.raises(ValueError, match="multiple of batch"):
        Recipe(batch=3, bank=4)
    with pytest.raises(ValueError, match="steps must be above 0"):
        Recipe(steps=0)
    for impossible in (
        {"adversarial_loss": "wgan"},
        {"contrastive_form": "both"},
        {"adversarial_weight": -1.0},
        {"discriminator_learning_rate": 0.0},
        {"places": 0},
        {"warmup": -1},
        {"keep": 1.0},
        {"keep": -0.1},
        {"warm_keep": 0.2},  # of no warm start
        {"warm_start": "l1", "warm_keep": 1.0},
    ):
        with pytest.raises(ValueError, match=list(impossible)[-1]):
            replace(TINY, **impossible)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="decay"):
        Recipe(average=1.0)
    with pytest.raises(ValueError, match="patch of 14"):
        Training(replace(TINY, crop=64), pairs, pvm=pvm)
    with pytest.raises(ValueError, match="does not fit into slices"):
        Training(replace(PLAIN, crop=256), pairs)
    with pytest.raises(ValueError, match="the recipe needs"):
        Training(replace(TINY, contrastive_taps=(9,)), pairs, pvm=pvm)


def test_a_folder_moved_elsewhere_still_resumes(pairs: Pairs, tmp_path: Path) -> None:
    run(Training(PLAIN, pairs, tmp_path / "here"), 2)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert math.isclose(Training.resume(tmp_path / "there", pairs).done, 2)


def test_a_new_run_does_not_touch_an_old_one(pairs: Pairs, tmp_path: Path) -> None:
    run(Training(PLAIN, pairs, tmp_path), 2)
    with pytest.raises(CheckpointError, match="a run in .* already"):
        Training(PLAIN, pairs, tmp_path)


def test_the_command_trains_resumes_and_exports(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_command, "training_pairs", lambda protocol, volumes: pairs)
    settings = [
        "batch=2",
        "bank=4",
        "crop=56",
        "adversarial_weight=0",
        "contrastive_weight=0",
        "betas=[0.9,0.99]",
    ]
    out, file = tmp_path / "run", tmp_path / "small.safetensors"
    assert train_command.main(["--out", str(out), "--report-every", "2", "--set", "steps=4", *settings]) == 0
    assert sorted(p.name for p in out.glob("*.png")) == ["step_000002.png", "step_000004.png"]
    assert train_command.main(["--out", str(out), "--resume", "--export", str(file)]) == 0
    assert read_card(file)["recipe"]["betas"] == [0.9, 0.99]
    assert read_card(file)["data"]["protocol"] == "course"
    assert "step 4: pixel" in capsys.readouterr().out


@pytest.mark.parametrize(
    "setting", ["stepps=3", "steps=three", "steps=1.5", "betas=0.9", "anatomy=yes", "steps=true"]
)
def test_a_setting_that_cannot_be_read_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown field|cannot be read"):
        train_command.main(["--out", str(tmp_path / "run"), "--set", setting])
    assert not (tmp_path / "run").exists()


# What reaches whom


WITHOUT_PVM = replace(TINY, contrastive_weight=0.0, anatomy=False)
"""A plain discriminator: the adversarial part alone."""


def test_an_lsgan_recipe_without_anatomy_trains_both_by_squares_and_needs_no_pvm(pairs: Pairs) -> None:
    training = Training(replace(WITHOUT_PVM, adversarial_loss="lsgan"), pairs)
    assert training.pvm is None
    d = training.discriminator.eval().module  # spectral norm holds still
    batch = training.bank.at(0)
    y, fake = denormalise(batch.normal), denormalise(training.generator.module(batch.low).detach())
    expected = (0.5 * (d(y) - 1).square().mean() + 0.5 * d(fake).square().mean()).item()
    losses = training.step(batch)
    assert losses["discriminator"] == pytest.approx(expected, rel=1e-4)
    passes = 0.5 * (d(fake) - 1).square().mean()  # of D as updated
    assert losses["adversarial"] == pytest.approx(passes.item(), rel=1e-4)


def test_the_generators_step_leaves_d_alone_and_ds_gradients_are_clipped_too(pairs: Pairs) -> None:
    training = Training(replace(WITHOUT_PVM, clip=1e-4), pairs)
    batch, d = training.bank.at(0), list(training.discriminator.module.parameters())
    denoised = training.generator(batch.low)
    training.discriminator_step(denoised.detach(), batch)
    gradients = [weight.grad.clone() for weight in d if weight.grad is not None]
    assert len(gradients) == len(d)
    assert torch.stack([g.norm() for g in gradients]).norm().item() == pytest.approx(1e-4, rel=0.01)
    kept = [weight.clone() for weight in d]
    training.generator_step(denoised, batch)
    assert all(torch.equal(a, w) for a, w in zip(kept, d, strict=True))
    assert all(torch.equal(g, w.grad) for g, w in zip(gradients, d, strict=True))  # type: ignore[arg-type]
    assert all(weight.requires_grad for weight in d)


def test_the_recipe_says_how_d_asks_and_how_adam_remembers(pairs: Pairs, pvm: PVM) -> None:
    for query, positions in (("image", True), ("semantic", False)):
        recipe = replace(TINY, query=query, positions=positions, betas=(0.3, 0.9))
        training = Training(recipe, pairs, pvm=pvm)
        fusions = training.discriminator.module._fusions()
        assert [(fusion.query, fusion.positions) for fusion in fusions] == [(query, positions)] * 3
        for optimiser in training._optimisers().values():
            assert tuple(optimiser.param_groups[0]["betas"]) == (0.3, 0.9)


def test_a_recipe_reads_only_the_taps_that_its_losses_need() -> None:
    assert Recipe(contrastive_taps=(9,)).taps == (4, 8, 9, 12)
    assert Recipe(anatomy=False, contrastive_taps=(9,)).taps == (9,)
    assert Recipe(contrastive_weight=0.0).taps == (4, 8, 12)
    assert WITHOUT_PVM.taps == PLAIN.taps == ()


def test_the_contrastive_loss_gets_the_recipes_numbers_and_new_places_every_step(
    pairs: Pairs, pvm: PVM, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def remember(*maps: object, generator: torch.Generator, **options: object) -> torch.Tensor:
        asked.append({**options, "seed": generator.initial_seed()})
        return torch.zeros(())

    monkeypatch.setattr(training_module, "semantic_contrastive_loss", remember)
    numbers = {"temperature": 0.2, "places": 5, "negatives": 3, "min_distance": 1, "noise_term": False}
    training = Training(replace(TINY, contrastive_form="sum", **numbers), pairs, pvm=pvm)  # type: ignore[arg-type]
    monkeypatch.setattr(training, "maps", lambda hu, *, taps: {12: hu})
    crops = torch.zeros(2, 1, 56, 56)
    for done in (0, 1, 1):
        training.done = done
        training._contrastive(crops, Batch(crops, crops, {12: crops}, {12: crops}))
    seeds = [options.pop("seed") for options in asked]
    assert asked == [numbers | {"form": "sum"}] * 3
    assert seeds[0] != seeds[1] == seeds[2]


def test_the_seed_decides_where_training_starts(pairs: Pairs) -> None:
    one, again, other = (
        Training(replace(PLAIN, seed=seed), pairs).generator.module.enter[1][0].weight  # type: ignore[index, union-attr]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_every_step_takes_its_own_batch(pairs: Pairs, monkeypatch: pytest.MonkeyPatch) -> None:
    training, taken = Training(replace(PLAIN, seed=5), pairs), []
    at = training.bank.at
    monkeypatch.setattr(training.bank, "at", lambda step: taken.append(step) or at(step))
    run(training, 3)
    run(training, 99)  # not beyond the recipe's last
    assert taken == [0, 1, 2, 3, 4, 5]
    assert training.bank.seed == 5


def test_the_average_follows_fast_at_first_and_then_by_the_recipe(pairs: Pairs) -> None:
    training = Training(replace(PLAIN, average=0.2), pairs)
    weight, mean = training.generator.module.leave[0].bias, training.averaged.leave[0].bias  # type: ignore[index, union-attr]
    for decay in (1 / 10, 2 / 11, 0.2, 0.2):
        before = mean.clone()
        training.step()
        torch.testing.assert_close(mean, decay * before + (1 - decay) * weight, atol=1e-8, rtol=1e-5)
        assert not torch.equal(mean, weight)


def test_a_report_is_the_mean_since_the_last(pairs: Pairs, tmp_path: Path) -> None:
    twin = Training(PLAIN, pairs)
    each = [twin.step()["pixel"] for _ in range(5)]
    reports = list(Training(PLAIN, pairs, tmp_path).run(5, report_every=2, progress=False))
    means = [(each[0] + each[1]) / 2, (each[2] + each[3]) / 2, each[4]]
    assert [report.losses["pixel"] for report in reports] == pytest.approx(means, rel=1e-6)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["pixel"]) for line in log] == list(zip((2, 4, 5), means, strict=True))


def test_a_loss_that_is_not_finite_stops_the_run_even_where_its_gradient_is(
    pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(PLAIN, pairs)
    monkeypatch.setattr(training, "generator_step", lambda *_: {"pixel": torch.tensor(math.inf)})
    with pytest.raises(FloatingPointError, match="step 0: .*inf"):
        training.step()


# Crops


def numbered_bank(pairs: Pairs, **options: object) -> CropBank:
    """Eight rows of four crops, three passes."""
    sizes = {"crop": 16, "size": 32, "batch": 4, "reuse": 3, "seed": 0}
    return CropBank(pairs, **(sizes | options))  # type: ignore[arg-type]


def names(crops: torch.Tensor) -> list[float]:
    """A number for each crop, to know it by."""
    return crops.double().flatten(1).square().sum(1).tolist()


def test_every_pass_shuffles_every_column_and_a_new_bank_has_other_crops(pairs: Pairs) -> None:
    bank = numbered_bank(pairs)
    columns = list(zip(*[iter(names(bank.crops(0).low))] * 4, strict=True))  # eight rows
    rows_of = [{column[c]: row for row, column in enumerate(columns)} for c in range(4)]
    orders = []
    for one_pass in range(3):
        seen = [names(bank.at(8 * one_pass + step).low) for step in range(8)]
        orders += [tuple(rows_of[c][batch[c]] for batch in seen) for c in range(4)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len(set(orders)) == 12  # three passes, four columns
    following = names(bank.at(24).low)
    assert not {name for column in columns for name in column} & set(following)
    assert names(numbered_bank(pairs).at(24).low) == following  # whatever was asked before
    assert names(numbered_bank(pairs, seed=1).crops(0).low) != names(numbered_bank(pairs).crops(0).low)


def test_processes_share_the_batches_of_one(pairs: Pairs) -> None:
    whole = numbered_bank(pairs)
    parts = [numbered_bank(pairs, rank=rank, processes=2) for rank in range(2)]
    for step in (0, 5, 9, 30):
        halves = [part.at(step) for part in parts]
        assert [len(half.low) for half in halves] == [2, 2]
        for name in ("low", "normal"):
            together = torch.cat([getattr(half, name) for half in halves])
            assert torch.equal(together, getattr(whole.at(step), name))


def test_features_of_a_bank_are_computed_once_and_stay_with_their_crops(pairs: Pairs) -> None:
    calls = []

    def corner(hu: torch.Tensor) -> dict[int, torch.Tensor]:
        calls.append(len(hu))
        assert not torch.is_grad_enabled()
        return {12: hu[..., :2, :2].clone()}

    bank = numbered_bank(pairs, size=40, normal_features=corner, low_features=corner)
    for step in range(30):  # 10 rows, 3 passes
        batch = bank.at(step)
        torch.testing.assert_close(batch.normal_maps[12], denormalise(batch.normal)[..., :2, :2])
        torch.testing.assert_close(batch.low_maps[12], denormalise(batch.low)[..., :2, :2])
    assert sum(calls) == 2 * 40
    assert max(calls) <= 16


# On disk


def test_a_resume_forgets_what_the_log_says_of_later_steps(pairs: Pairs, tmp_path: Path) -> None:
    run(Training(PLAIN, pairs, tmp_path), 2)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "pixel": 9.0}\n')  # logged, but killed before the checkpoint
    Training.resume(tmp_path, pairs)
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2]


def test_a_warm_start_is_what_is_trained_and_its_origin_survives_a_resume(
    pairs: Pairs, tmp_path: Path
) -> None:
    training = Training(replace(PLAIN, warm_start="l1", warm_keep=0.25), pairs, tmp_path)
    for trained, mean in zip(
        training.generator.module.parameters(), training.averaged.parameters(), strict=True
    ):
        assert torch.equal(trained, mean)
    training.save()
    resumed = Training.resume(tmp_path, pairs)
    assert resumed.warm_start == training.warm_start
    assert resumed.warm_start is not None
    assert resumed.warm_start["sha256"] == file_sha256(weights_path("l1"))


def test_a_checkpoint_appears_whole_and_the_newest_is_the_one_with_most_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> str:
        raise KeyboardInterrupt

    state = {"w": torch.ones(1)}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "file_sha256", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(tmp_path, 1, state, {})
    assert not has_checkpoints(tmp_path)
    for step in (999_998, 999_999, 1_000_000):
        write_checkpoint(tmp_path, step, state, {})
    assert read_newest(tmp_path)[1]["steps"] == 1_000_000
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_1000000", "step_999999"]


def test_weights_of_another_width_are_refused_and_half_a_file_is_half_as_large(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small, wide = UNet(width=4), UNet(width=8)
    full = write_weights(tmp_path / "full.safetensors", wide, {"recipe": {"generator": "unet"}})
    with pytest.raises(CheckpointError, match="names or shapes differ"):
        load_weights(small, full)
    rounded = write_weights(tmp_path / "half.safetensors", wide, {}, half=True)
    assert {tensor.dtype for tensor in load_file(rounded).values()} == {torch.float16}
    twin = UNet(width=8)
    load_weights(twin, rounded)
    for ours, theirs in zip(twin.parameters(), wide.parameters(), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there, and the tests with it")
def test_sigterm_ends_the_command_after_the_step_under_way_with_a_checkpoint(
    pairs: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Training.step

    def terminated(training: Training) -> dict[str, float]:
        if training.done == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(training)

    monkeypatch.setattr(train_command, "training_pairs", lambda protocol, volumes: pairs)
    monkeypatch.setattr(train_command, "_save_picture", lambda *_: None)
    monkeypatch.setattr(Training, "step", terminated)
    before = signal.getsignal(signal.SIGTERM)
    settings = ["steps=5", "batch=2", "bank=4", "crop=56", "adversarial_weight=0", "contrastive_weight=0"]
    export = tmp_path / "small.safetensors"
    assert train_command.main(["--out", str(tmp_path), "--export", str(export), "--set", *settings]) == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert [path.name for path in tmp_path.glob("step_*") if path.is_dir()] == ["step_000002"]
    assert not export.exists()  # not finished
    assert "stopped after step 2" in capsys.readouterr().out
