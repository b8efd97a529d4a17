"""The segmenter that judges pictures: how it looks at a slice, and what the shipped one finds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alden_lite.data.organs import GROUPS, phantom_groups, sample_groups
from alden_lite.data.sample import SPLIT, load_sample
from alden_lite.engine.checkpoint import CheckpointError, read_card, weights_path
from alden_lite.evaluation.organs import dice
from alden_lite.evaluation.segmenter import Segmenter, load_segmenter, segment
from alden_lite.evaluation.segmenter_training import FIRST_TRAINING_PATIENT
from alden_lite.phantom import Patient, render
from alden_lite.physics.dose import simulate_pair
from alden_lite.physics.scanner import Scanner

LIVER, BONE = 1 + GROUPS.index("liver"), 1 + GROUPS.index("bone")


@pytest.fixture(scope="module")
def shipped() -> Segmenter:
    return load_segmenter()


class Bright(Segmenter):
    """A stand-in that calls bone what is bright, at half resolution."""

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        assert hu.shape[-2] % self.multiple == hu.shape[-1] % self.multiple == 0
        scores = torch.zeros(len(hu), 11, hu.shape[-2] // 2, hu.shape[-1] // 2)
        scores[:, 0] = 1
        scores[:, BONE] = 10 * (torch.nn.functional.avg_pool2d(hu, 2)[:, 0] > 300)
        return scores


# The network


def test_every_half_resolution_pixel_gets_eleven_scores() -> None:
    network = Segmenter().eval()
    assert network(torch.zeros(2, 1, 96, 64)).shape == (2, 11, 48, 32)


def test_every_weight_has_a_say() -> None:
    network = Segmenter()
    hu = torch.from_numpy(np.random.default_rng(0).normal(0, 300, (2, 1, 64, 64))).float()
    (network(hu) ** 2).sum().backward()
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in network.parameters())


@pytest.mark.parametrize("shape", [(50, 70), (3, 50, 70), (32, 32), (1, 1)])
def test_slices_of_any_size_are_segmented(shape: tuple[int, ...]) -> None:
    found = segment(np.zeros(shape, np.int16), Segmenter())
    assert found.shape == shape and found.dtype == np.uint8


def test_a_slice_is_segmented_alone_as_in_a_volume(shipped: Segmenter) -> None:
    hu = load_sample().hu[20:22, 128:384, 128:384]
    both = segment(hu, shipped)
    np.testing.assert_array_equal(both[1], segment(torch.from_numpy(hu[1]), shipped))


def test_groups_lie_where_their_scores_lie() -> None:
    hu = np.zeros((40, 50))
    hu[6:8, 10:12] = 1000  # one pixel of half resolution
    found = segment(hu, Bright())
    rows, columns = np.nonzero(found)
    assert set(found[rows, columns]) == {BONE}
    # Interpolation adds a rim.
    assert (rows.mean(), columns.mean()) == (6.5, 10.5)
    assert {6, 7} <= set(rows) <= {5, 6, 7, 8}


def test_it_sees_what_windows_show_and_nothing_beyond() -> None:
    network = Segmenter().eval()
    slices = torch.full((4, 1, 32, 32), 1.0) * torch.tensor([1301.0, 3000, -1351, -3000])[:, None, None, None]
    scores = network(slices)
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[2], scores[3])
    assert not torch.allclose(scores[0], scores[2])
    inside = network(torch.full((3, 1, 32, 32), 1.0) * torch.tensor([50.0, -700, 900])[:, None, None, None])
    near = network(torch.full((3, 1, 32, 32), 1.0) * torch.tensor([60.0, -710, 910])[:, None, None, None])
    assert ((inside - near).abs().amax((1, 2, 3)) > 0).all()  # each of the windows is there


def test_single_pixels_noise_gets_in() -> None:
    network = Segmenter().eval()
    hu = torch.zeros(1, 1, 64, 64)
    chequered = hu + 20 * (-1.0) ** torch.arange(64)  # its mean over 2 x 2 pixels is 0
    assert (network(hu) - network(chequered)).abs().max() > 1e-3


def test_segmenting_leaves_the_segmenter_as_it_was() -> None:
    network = Segmenter()  # in training mode but for one part, one weight frozen, the others with gradients
    network.up[0].eval()
    network.across[0].weight.requires_grad_(False)
    hu = np.random.default_rng(0).normal(0, 300, (2, 64, 64))
    network(torch.from_numpy(hu).float()[:, None]).sum().backward()

    def state() -> tuple[dict[str, Any], ...]:
        return (
            {name: part.training for name, part in network.named_modules()},
            {name: weight.requires_grad for name, weight in network.named_parameters()},
            {name: None if w.grad is None else w.grad.tolist() for name, w in network.named_parameters()},
            {name: value.tolist() for name, value in network.state_dict().items()},
        )

    before = state()
    assert set(before[0].values()) == set(before[1].values()) == {True, False}
    found = segment(hu, network)
    assert state() == before
    np.testing.assert_array_equal(found, segment(hu, network.eval()))  # as if it had been in eval mode


@pytest.mark.parametrize(
    ("hu", "said"),
    [
        (np.zeros(5), r"got shape \(5,\)"),
        (np.zeros((1, 1, 8, 8)), r"got shape \(1, 1, 8, 8\)"),
        (np.zeros((0, 8, 8)), r"got shape \(0, 8, 8\)"),
        (np.full((8, 8), np.nan), "NaN or infinite"),
        (np.full((8, 8), np.inf), "NaN or infinite"),
    ],
)
def test_a_bad_ct_is_refused(hu: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        segment(hu, Segmenter())


# The shipped one


def test_the_shipped_one_is_small_and_says_how_it_was_made() -> None:
    path = weights_path("segmenter")
    assert path.stat().st_size < 3e6
    card = read_card(path)
    assert "LIDC-IDRI-0001 training slabs, 76 slices" in card["data"]["sample"]
    assert f"seeds {FIRST_TRAINING_PATIENT} to" in card["data"]["phantoms"]
    assert "clinical" in card["notice"]
    assert {"torch", "numpy"} <= set(card["versions"])


def test_the_shipped_one_finds_organs_on_slices_it_never_saw(shipped: Segmenter) -> None:
    volume = load_sample()
    assert volume.labels is not None
    z = [SPLIT["test"][0][0] + 5, SPLIT["test"][1][0] + 5]
    overlap = dice(segment(volume.hu[z], shipped), sample_groups(volume.labels[z]))
    for group in ("lung", "bone", "liver"):
        assert overlap[group] > 0.7, group


def test_the_shipped_one_finds_organs_of_a_phantom_it_never_saw_and_noise_hurts_it(
    shipped: Segmenter,
) -> None:
    phantom = render(Patient.draw(0), "abdomen", z_mm=20)
    scanner = Scanner.preset("abdomen", pixel_mm=phantom.pixel_mm)
    scan = simulate_pair(phantom.hu, scanner=scanner, dose=0.02, seed=0)
    truth = phantom_groups(phantom.labels)
    normal, low = (dice(segment(hu, shipped), truth) for hu in (scan.normal, scan.low))
    assert normal["bone"] > 0.7 and normal["liver"] > 0.7
    assert np.nanmean(list(low.values())) < np.nanmean(list(normal.values())) - 0.02


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.safetensors").write_bytes(weights_path("segmenter").read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_segmenter(tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match="does not hold weights of a Segmenter"):
        load_segmenter("l1")
    with pytest.raises(CheckpointError, match="no generator at"):
        load_segmenter(tmp_path / "none.safetensors")
