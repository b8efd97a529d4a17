"""The engine: players, followers, batches of any kind; every method goes on where it was cut off."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alden_lite.alden.paired import PairedRun
from alden_lite.alden.pvm import PVM, load_pvm
from alden_lite.alden.training import Recipe, Training
from alden_lite.data.pairs import Pairs
from alden_lite.engine.checkpoint import CheckpointError
from alden_lite.engine.loop import Plan, Run, frozen, learning_rate
from alden_lite.neighbours.ascon import AsconPlan, AsconTraining
from alden_lite.neighbours.dugan import DualDomainPlan, DualDomainTraining
from alden_lite.neighbours.wgan import TAPS, WassersteinPlan, WassersteinTraining

TINY: dict[str, Any] = {"steps": 6, "batch": 2, "warmup": 2, "learning_rate": 1e-2, "accelerator": "cpu"}
PAIRED: dict[str, Any] = {**TINY, "crop": 112, "bank": 2, "reuse": 2}
WITHOUT_PVM = {"adversarial_weight": 0.0, "contrastive_weight": 0.0}

METHODS: dict[str, Callable[[PVM, PVM], tuple[type[PairedRun], Any, dict[str, PVM]]]] = {
    "l1": lambda *_: (Training, Recipe(**PAIRED, **WITHOUT_PVM), {}),
    "alden": lambda deep, _: (Training, Recipe(**PAIRED), {"pvm": deep}),
    "wgan": lambda _, shallow: (WassersteinTraining, WassersteinPlan(**PAIRED), {"pvm": shallow}),
    "dugan": lambda *_: (DualDomainTraining, DualDomainPlan(**PAIRED), {}),
    "ascon": lambda *_: (AsconTraining, AsconPlan(**PAIRED), {}),
}
PLAYERS = {
    "l1": {"generator"},
    "alden": {"generator", "discriminator"},
    "wgan": {"generator", "critic"},
    "dugan": {"generator", "image_discriminator", "gradient_discriminator"},
    "ascon": {"generator", "online"},
}


@pytest.fixture(scope="module")
def deep() -> PVM:
    return load_pvm("dinov2_vits14", taps=(4, 8, 12))


@pytest.fixture(scope="module")
def shallow() -> PVM:
    return load_pvm("dinov2_vits14", taps=TAPS)


def state_of(run: Run) -> dict[str, torch.Tensor]:
    """Every tensor that a step changes, of players, their optimisers and followers."""
    state = {
        f"{name}.{key}": tensor.clone()
        for name, network in {
            **{n: p.network.module for n, p in run.players.items()},
            **run.followers,
        }.items()
        for key, tensor in network.state_dict().items()
    }
    for name, player in run.players.items():
        for index, moments in player.optimiser.state_dict()["state"].items():
            state |= {f"{name}.{index}.{key}": torch.as_tensor(v).clone() for key, v in moments.items()}
    return state


def run_to(run: Run, step: int) -> None:
    for _ in run.run(step, report_every=2, progress=False):
        pass


# A method of one's own


class Two(nn.Module):
    """Two numbers, that a line has."""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.start = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * x + self.start


class Line(Run):
    """Least squares: batches are points of a line, no pictures."""

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        x, y = batch
        return {"squares": self.minimise("network", (self.network(x) - y).square().mean())}


def points(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 8) * (1 + step % 3)
    return x, 3 * x - 1


def test_a_run_takes_batches_of_any_kind_and_averages_one_network() -> None:
    run = Line(
        Plan(**{**TINY, "steps": 300, "learning_rate": 0.1, "clip": 10.0, "average": 0.9}), Two(), points
    )
    reports = list(run.run(report_every=100, progress=False))
    assert [report.step for report in reports] == [100, 200, 300]
    assert reports[-1].losses["squares"] < 1e-3 < reports[0].losses["squares"]
    assert run.averaged.slope.item() == pytest.approx(3, abs=0.02)  # type: ignore[union-attr]
    assert run.averaged.start.item() == pytest.approx(-1, abs=0.02)  # type: ignore[union-attr]


def test_a_method_without_losses_is_none() -> None:
    with pytest.raises(TypeError, match="losses"):
        Run(Plan(), Two(), points)  # type: ignore[abstract]


def test_a_step_sets_the_rate_of_every_player() -> None:
    run = Line(Plan(**TINY), Two(), points)
    run.player("other", Two(), 4 * run.plan.learning_rate)
    for step in range(4):
        wanted = learning_rate(step, steps=6, warmup=2, peak=1e-2)
        run.step()
        rates = {name: one.optimiser.param_groups[0]["lr"] for name, one in run.players.items()}
        assert rates == {"network": wanted, "other": pytest.approx(4 * wanted)}


def test_only_clipped_players_have_their_gradients_clipped() -> None:
    run = Line(Plan(**TINY, clip=1e-3), Two(), points)
    wild = run.player("wild", Two(), 0.1, clipped=False)
    x, y = points(0)
    for name, network, largest in (("network", run.network, 1.01e-3), ("wild", wild, 1e9)):
        run.minimise(name, 100 * (network(x) - y).square().mean())
        norm = torch.stack([p.grad for p in network.parameters()]).norm().item()
        assert norm <= largest
        assert (norm > 1) == (name == "wild")


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    run = Line(Plan(**TINY), Two(), lambda _: (torch.ones(2), torch.tensor([1.0, torch.inf])))
    with pytest.raises(FloatingPointError, match="of network is not finite"):
        run.step()
    assert run.done == 0


def test_a_frozen_network_passes_gradients_and_keeps_none() -> None:
    network, x = Two(), torch.ones(2, requires_grad=True)
    with torch.no_grad():
        network.slope += 2
    with frozen(network):
        network(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 2] and network.slope.grad is None
    assert network.slope.requires_grad


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps must be above 0"),
        ({"warmup": -1}, "warmup must not be negative"),
        ({"average": 1.0}, "average is a decay"),
        ({"batch": 3, "devices": 2}, "multiple of all devices"),
    ],
)
def test_plans_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(Plan(), **changes)


@dataclass(frozen=True, kw_only=True)
class Longer(Plan):
    """A plan with a field of its own."""

    taps: tuple[int, ...] = (1, 2)


def test_a_plan_comes_back_from_json_and_unknown_fields_are_refused() -> None:
    plan = Longer(taps=(3,), betas=(0.1, 0.2))
    stored = json.loads(json.dumps({"taps": plan.taps, "betas": plan.betas}))
    assert Longer.stored(stored) == plan
    with pytest.raises(CheckpointError, match=r"does not know: \['taps'\]"):
        Plan.stored(stored)


# Going on


def test_a_run_of_ones_own_goes_on_bit_for_bit(tmp_path: Path) -> None:
    plan = Plan(**TINY)
    whole = Line(plan, Two(), points)
    run_to(whole, 6)
    run_to(Line(plan, Two(), points, tmp_path), 4)
    resumed = Line.resume(tmp_path, Two(), points)
    assert resumed.done == 4 and resumed.plan == plan
    run_to(resumed, 6)
    expected, found = state_of(whole), state_of(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_bit_for_bit_with_all_its_players(
    name: str, pairs: Pairs, deep: PVM, shallow: PVM, tmp_path: Path
) -> None:
    training, plan, options = METHODS[name](deep, shallow)
    whole = training(plan, pairs, **options)
    assert whole.players.keys() == PLAYERS[name]
    first = state_of(whole)
    run_to(whole, 5)
    run_to(training(plan, pairs, tmp_path, **options), 4)
    torch.manual_seed(1234)  # nothing may hang on what was drawn before
    resumed = training.resume(tmp_path, pairs, **options)
    run_to(resumed, 5)
    expected, found = state_of(whole), state_of(resumed)
    assert expected.keys() == found.keys()
    assert [key for key in expected if not torch.equal(expected[key], found[key])] == []
    learning = {key.split(".")[0] for key in first if not torch.equal(first[key], expected[key])}
    assert learning == PLAYERS[name] | whole.followers.keys(), "all of it had moved"


@pytest.mark.parametrize("name", ["wgan", "dugan", "ascon"])
def test_a_folder_without_the_critics_is_refused_and_kept(
    name: str, pairs: Pairs, deep: PVM, shallow: PVM, tmp_path: Path
) -> None:
    training, plan, options = METHODS[name](deep, shallow)
    run = training(plan, pairs, tmp_path, **options)
    run.step()
    players, followers = dict(run.players), dict(run.followers)
    run.players = {"generator": players["generator"]}  # as runs were saved that knew no players
    run.followers = {"averaged": followers["averaged"]}
    run.save()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    lacking = next(iter(PLAYERS[name] - {"generator"}))
    with pytest.raises(CheckpointError, match=f"cannot go on: the checkpoint lacks .*{lacking}"):
        training.resume(tmp_path, pairs, **options)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_run_of_another_method_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    run_to(Training(Recipe(**PAIRED, **WITHOUT_PVM), pairs, tmp_path), 2)
    with pytest.raises(CheckpointError, match="does not know"):
        AsconTraining.resume(tmp_path, pairs)


def test_another_folder_of_a_run_is_not_written_into(tmp_path: Path) -> None:
    run_to(Line(Plan(**TINY), Two(), points, tmp_path), 2)
    with pytest.raises(CheckpointError, match="go on with Line.resume"):
        Line(Plan(**TINY), Two(), points, tmp_path)
    with pytest.raises(ValueError, match="keeps its recipe"):
        Line.resume(tmp_path, Two(), points, machine={"steps": 9})
    with pytest.raises(ValueError, match="no folder to save in: give one to Line"):
        Line(Plan(**TINY), Two(), points).save()
