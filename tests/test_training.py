"""One step, the loop, checkpoints. Tiny made-up slices, the real DINOv2."""

import copy
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import softplus

from alden_lite import discriminator as discriminator_module
from alden_lite import training as training_module
from alden_lite.checkpoint import CheckpointError, flat_state, load_weights, read_card, weights_path
from alden_lite.contrastive import semantic_contrastive_loss
from alden_lite.data import Pairs
from alden_lite.discriminator import discriminator_loss, generator_loss
from alden_lite.generator import REDCNN, UNet
from alden_lite.hounsfield import denormalise
from alden_lite.pvm import PVM, for_crops, load_pvm
from alden_lite.training import Recipe, Training, learning_rate

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
    with pytest.raises(FloatingPointError, match="gradient is not finite"):
        training.step()
    assert all(torch.equal(before[k], t) for k, t in training.generator.module.state_dict().items())


def test_a_resumed_run_keeps_its_recipe_and_its_pvm(pairs: Pairs, pvm: PVM, tmp_path: Path) -> None:
    run(Training(TINY, pairs, tmp_path, pvm=pvm), 2)
    with pytest.raises(ValueError, match="keeps its recipe"):
        Training.resume(tmp_path, pairs, pvm=pvm, learning_rate=9.0)
    with pytest.raises(CheckpointError, match="another PVM"):
        Training.resume(tmp_path, pairs, pvm=load_pvm("dinov2_vits14", taps=TINY.taps, windows="lung"))
    assert Training.resume(tmp_path, pairs, pvm=pvm, precision="bf16-mixed").recipe.precision == "bf16-mixed"


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


def test_the_gradient_penalty_is_r1_of_every_patch(
    pairs: Pairs, pvm: PVM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discriminator_module, "SLOPE", 1.0)  # a slope with jumps has no finite difference
    training = Training(replace(TINY, r1_weight=0.7), pairs, pvm=pvm)
    d = training.discriminator.module.eval()  # spectral norm holds still
    batch = training.bank.at(0)
    semantics = [batch.normal_maps[t] for t in (4, 8, 12)]
    twin = copy.deepcopy(d).double()

    def penalty() -> float:
        total, patches = 0.0, 0
        for crop, *maps in zip(batch.normal.double(), *(s.double() for s in semantics), strict=True):
            seen = (crop[None] / 200 * 1024).requires_grad_()  # what D sees, before its level and its limit
            logits = twin(seen * 200, [m[None] for m in maps])
            (slope,) = torch.autograd.grad(logits.sum(), seen)
            total, patches = total + slope.square().sum().item(), patches + logits.numel()
        return 16 * 0.7 / 2 * total / patches

    weights = list(d.parameters())
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    training._add_gradient_penalty(batch)
    way = [torch.randn(w.shape, generator=torch.Generator().manual_seed(n)) for n, w in enumerate(weights)]
    expected, step = [], 1e-4
    for sign in (1, -1):
        with torch.no_grad():
            for weight, start, move in zip(twin.parameters(), weights, way, strict=True):
                weight.copy_(start.double() + sign * step * move)
        expected.append(penalty())
    ours = sum(float((w.grad * move).sum()) for w, move in zip(weights, way, strict=True))  # type: ignore[operator]
    assert ours == pytest.approx((expected[0] - expected[1]) / (2 * step), rel=1e-2)


def test_the_gradient_penalty_is_taken_every_sixteenth_step(
    pairs: Pairs, pvm: PVM, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(Training, "_add_gradient_penalty", lambda self, batch: taken.append(self.done))
    recipe = replace(TINY, steps=18, contrastive_weight=0.0)
    run(Training(replace(recipe, r1_weight=1.0), pairs, pvm=pvm))
    assert taken == [0, 16]
    run(Training(recipe, pairs, pvm=pvm), 2)
    assert taken == [0, 16]


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
    monkeypatch.setattr(training_module, "training_pairs", lambda protocol, volumes: pairs)
    settings = [
        "batch=2",
        "bank=4",
        "crop=56",
        "adversarial_weight=0",
        "contrastive_weight=0",
        "betas=[0.9,0.99]",
    ]
    out, file = tmp_path / "run", tmp_path / "small.safetensors"
    assert (
        training_module.main(["--out", str(out), "--report-every", "2", "--set", "steps=4", *settings]) == 0
    )
    assert sorted(p.name for p in out.glob("*.png")) == ["step_000002.png", "step_000004.png"]
    assert training_module.main(["--out", str(out), "--resume", "--export", str(file)]) == 0
    assert read_card(file)["recipe"]["betas"] == [0.9, 0.99]
    assert read_card(file)["data"]["protocol"] == "course"
    assert "step 4: pixel" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["stepps=3", "steps=three", "steps=1.5", "betas=0.9", "anatomy=yes"])
def test_a_setting_that_cannot_be_read_is_refused(setting: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown field|cannot be read"):
        training_module.main(["--out", str(tmp_path / "run"), "--set", setting])
    assert not (tmp_path / "run").exists()
