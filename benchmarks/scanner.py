"""How fast and how exact is the scanner? Projection, FBP and a finished pair, beside other projectors.

    python benchmarks/scanner.py [--rounds 5]
    pip install astra-toolbox deepinv torchkbnufft     (optional: each adds a row)

A slice of 512 x 512, 720 views over 180 degrees x 736 channels, a noise-free disk of water. All engines run
in one process on two threads if they can use two, in turn, round after round; medians. Each projects the
disk and reconstructs its own projection, from its own kind of array to its own kind of array.

scikit-image and deepinv tie the detector to the pixels: 725 channels as wide as a pixel, and the disk is put
on their centre of rotation, half a pixel off ours. scikit-image's second row scans the inscribed circle only:
512 channels, less work than the others do. astra's projector is `linear` (Joseph's), the fastest it has on a
CPU and not its most exact. deepinv filters with the bare ramp, the rest with a Hann kernel. The row of
torchkbnufft is our scanner with its non-uniform FFT in place of finufft's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from skimage.transform import iradon, radon

from alden_lite.data.sample import load_sample, split_slices
from alden_lite.physics.dose import insert_noise, photons_matching, simulate_pair
from alden_lite.physics.hounsfield import MU_WATER_PER_MM, mu_to_hu
from alden_lite.physics.scanner import Scanner
from alden_lite.physics.slice_theorem import SliceTheorem

SCANNER = Scanner()
RADIUS_MM = 150.0
THREADS = 2


@dataclass(frozen=True)
class Engine:
    """One way to scan the disk: image to line integrals (V, C), and those to an (N, N) slice of 1/mm."""

    name: str
    image: Any  # the disk in 1/mm, as this engine takes it
    project: Callable[[Any], Any]
    reconstruct: Callable[[Any], Any]
    channels_mm: np.ndarray = field(default_factory=lambda: SCANNER.channel_positions_mm)
    centre: float = (SCANNER.matrix - 1) / 2  # of rotation, in pixels

    def rows_first(self, sinogram: Any) -> np.ndarray:
        """(V, C), whichever way round the engine stores it."""
        lines = np.squeeze(np.asarray(sinogram))
        return lines if lines.shape[0] == SCANNER.n_views else lines.T


def main() -> None:
    """Print two tables and, as the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often every engine gets its turn")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    torch.set_num_threads(THREADS)
    figures = _engines_table(rounds) | _pairs_table(rounds)
    print(json.dumps(figures))


def _engines_table(rounds: int) -> dict[str, float]:
    engines, absent = [], []
    for key, make in MAKERS.items():
        try:
            engines.append((key, make()))
        except ModuleNotFoundError as error:
            if error.name != key:
                raise  # installed, but broken
            absent.append(key)
    seconds: dict[str, list[tuple[float, float, float]]] = {key: [] for key, _ in engines}
    for number in range(rounds + 1):
        for key, engine in engines:
            turns = [_turn(engine) for _ in range(5 if key == "ours" else 1)]
            if number > 0:  # the first round makes plans and fills caches
                seconds[key] += turns
    columns = ["projection ms", "FBP ms", "clock, ours = 1", "processor, ours = 1", "lines", "water HU"]
    print(f"| engine | {' | '.join(columns)} |")
    print("|---" * 7 + "|")
    ours_s, ours_busy = _median_of_both(seconds["ours"])
    figures: dict[str, float] = {}
    for key, engine in engines:
        fp, fbp, _ = (median(column) for column in zip(*seconds[key], strict=True))
        clock, busy = _median_of_both(seconds[key])
        line_error, mean, deviation = _accuracy(engine)
        print(
            f"| {engine.name} | {1e3 * fp:.0f} | {1e3 * fbp:.0f} | {clock / ours_s:.1f} | "
            f"{busy / ours_busy:.1f} | {line_error:.1e} | {mean:+.2f} ± {deviation:.2f} |",
            flush=True,
        )
        if key == "ours":
            figures |= {"fp_ms": round(1e3 * fp, 1), "fbp_ms": round(1e3 * fbp, 1)}
        else:
            name = f"fp_fbp_vs_{key}"
            figures |= {name: round(clock / ours_s, 1), f"{name}_processor": round(busy / ours_busy, 1)}
    for name in absent:
        print(f"| {name} | not installed" + " |" * 6)
    print("\nclock, processor: time of projection and FBP; trust the processor's where other programs run.")
    print("lines: root mean square error against the disk's chords, over the longest.\n")
    return figures


def _turn(engine: Engine) -> tuple[float, float, float]:
    """Seconds of projection, seconds of FBP, and processor seconds of both."""
    start, busy = time.perf_counter(), time.process_time()
    sinogram = engine.project(engine.image)
    middle = time.perf_counter()
    engine.reconstruct(sinogram)
    return middle - start, time.perf_counter() - middle, time.process_time() - busy


def _median_of_both(turns: list[tuple[float, float, float]]) -> tuple[float, float]:
    """Seconds and processor seconds of projection and FBP together."""
    return median(fp + fbp for fp, fbp, _ in turns), median(busy for _, _, busy in turns)


def _accuracy(engine: Engine) -> tuple[float, float, float]:
    """Error of the lines as a share of the longest; mean and standard deviation of water in HU."""
    sinogram = engine.project(engine.image)
    chord = 2 * np.sqrt(np.maximum(RADIUS_MM**2 - engine.channels_mm**2, 0)) * MU_WATER_PER_MM
    error = np.sqrt(((engine.rows_first(sinogram) - chord) ** 2).mean()) / chord.max()
    hu = mu_to_hu(np.squeeze(np.asarray(engine.reconstruct(sinogram))))
    along = (np.arange(SCANNER.matrix) - engine.centre) * SCANNER.pixel_mm
    water = hu[np.hypot(along[:, None], along) < RADIUS_MM - 10]
    return float(error), float(water.mean()), float(water.std())


def _disk(centre: float) -> np.ndarray:
    """Water in air, (N, N) float32 in 1/mm; pixels at the rim count by their coverage (4 x 4 samples)."""
    fine = ((np.arange(4 * SCANNER.matrix) + 0.5) / 4 - 0.5 - centre) * SCANNER.pixel_mm
    inside = np.hypot(fine[:, None], fine) < RADIUS_MM
    coverage = inside.reshape(SCANNER.matrix, 4, SCANNER.matrix, 4).mean((1, 3))
    return (coverage * MU_WATER_PER_MM).astype(np.float32)


def _ours() -> Engine:
    # `project` and `reconstruct` speak HU; the way there and back, and their checks, are timed too.
    hu = torch.from_numpy(mu_to_hu(_disk(Engine.centre)))
    return Engine(
        "alden_lite", hu, SCANNER.project, lambda s: (SCANNER.reconstruct(s) / 1000 + 1) * MU_WATER_PER_MM
    )


def _skimage(*, circle: bool = False) -> Engine:
    degrees, size = np.degrees(SCANNER.view_angles), SCANNER.matrix
    return Engine(
        "scikit-image, inscribed circle" if circle else "scikit-image radon, iradon",
        _disk(size // 2),
        lambda mu: radon(mu, degrees, circle=circle) * SCANNER.pixel_mm,
        lambda sinogram: (
            iradon(sinogram, degrees, filter_name="hann", circle=circle, output_size=size) / SCANNER.pixel_mm
        ),
        _channels_as_wide_as_pixels(size if circle else math.ceil(math.sqrt(2) * size)),
        size // 2,
    )


def _astra() -> Engine:
    import astra

    half = SCANNER.matrix * SCANNER.pixel_mm / 2
    volume = astra.create_vol_geom(SCANNER.matrix, SCANNER.matrix, -half, half, -half, half)
    rays = astra.create_proj_geom("parallel", SCANNER.channel_mm, SCANNER.n_channels, SCANNER.view_angles)
    projector = astra.create_projector("linear", rays, volume)

    def project(mu: np.ndarray) -> np.ndarray:
        identity, sinogram = astra.create_sino(mu, projector)
        astra.data2d.delete(identity)
        return sinogram

    def reconstruct(sinogram: np.ndarray) -> np.ndarray:
        lines, slice_ = astra.data2d.create("-sino", rays, sinogram), astra.data2d.create("-vol", volume)
        config = astra.astra_dict("FBP") | {
            "ProjectorId": projector,
            "ProjectionDataId": lines,
            "ReconstructionDataId": slice_,
            "option": {"FilterType": "hann"},
        }
        algorithm = astra.algorithm.create(config)
        astra.algorithm.run(algorithm)
        mu = astra.data2d.get(slice_)
        astra.algorithm.delete(algorithm)
        astra.data2d.delete([lines, slice_])
        return mu

    return Engine(f"astra {astra.__version__}, CPU, linear", _disk(Engine.centre), project, reconstruct)


def _deepinv() -> Engine:
    from deepinv.physics import Tomography

    physics = Tomography(
        angles=torch.from_numpy(np.degrees(SCANNER.view_angles)).float(),
        img_width=SCANNER.matrix,
        circle=False,
        parallel_computation=False,  # in parallel its grids alone take 6 GB twice
        adjoint_via_backprop=False,
        normalize=False,
    )
    return Engine(
        "deepinv Tomography",
        torch.from_numpy(_disk(SCANNER.matrix // 2))[None, None],
        lambda mu: physics.A(mu) * SCANNER.pixel_mm,
        lambda sinogram: physics.fbp(sinogram) / SCANNER.pixel_mm,
        _channels_as_wide_as_pixels(math.ceil(math.sqrt(2) * SCANNER.matrix)),
        SCANNER.matrix // 2,
    )


def _torchkbnufft() -> Engine:
    import torchkbnufft

    theorem = SliceTheorem(SCANNER.geometry)  # here one non-uniform transform can replace another
    places = torch.from_numpy(np.stack([theorem.ky.ravel(), theorem.kx.ravel()]).astype(np.float32))
    size = (SCANNER.matrix, SCANNER.matrix)
    transforms = {2: torchkbnufft.KbNufft(size), 1: torchkbnufft.KbNufftAdjoint(size)}

    @dataclass(frozen=True)
    class Plan:
        kind: int

        def execute(self, values: np.ndarray) -> np.ndarray:
            return transforms[self.kind](torch.from_numpy(values)[None, None], places)[0, 0].numpy()

    theorem.plans = {kind: Plan(kind) for kind in transforms}
    scale = math.pi / (SCANNER.n_views * theorem.padded)
    return Engine(
        "torchkbnufft in our scanner",
        torch.from_numpy(_disk(Engine.centre)),
        lambda mu: theorem.lines(mu, theorem.seen),
        lambda sinogram: theorem.smear(SCANNER.filter(sinogram), theorem.sharp) * scale,
    )


def _channels_as_wide_as_pixels(count: int) -> np.ndarray:
    """Positions in mm of a detector with channels as wide as the slice's pixels."""
    return (np.arange(count) - count // 2) * SCANNER.pixel_mm


MAKERS: dict[str, Callable[[], Engine]] = {
    "ours": _ours,
    "skimage": _skimage,
    "skimage_circle": partial(_skimage, circle=True),
    "astra": _astra,
    "deepinv": _deepinv,
    "torchkbnufft": _torchkbnufft,
}


def _pairs_table(rounds: int) -> dict[str, float]:
    volume, z = load_sample(), split_slices("test")[5]
    hu = torch.from_numpy(volume.hu[z].astype(np.float32))
    scanner = Scanner.covering(hu.shape[0], volume.spacing_mm[1])
    start = time.perf_counter()
    insert_noise(hu, scanner=scanner, dose=0.25, seed=0)
    first_s = time.perf_counter() - start
    disk = torch.from_numpy(mu_to_hu(_disk(Engine.centre)))

    def matched() -> None:
        insert_noise(hu, scanner=scanner, dose=0.25, seed=0, photons=photons_matching(hu, scanner=scanner))

    ways: dict[str, Callable[[], object]] = {
        "real slice, noise inserted": lambda: insert_noise(hu, scanner=scanner, dose=0.25, seed=0),
        "the same, photons matched to the slice first": matched,
        "noise-free slice, photons counted (two scans and `clean`)": lambda: simulate_pair(
            disk, scanner=SCANNER, dose=0.25, seed=0
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3 * rounds):
        for name, make in ways.items():
            start = time.perf_counter()
            make()
            seconds[name].append(time.perf_counter() - start)
    print(f"| a pair of 512 x 512, {scanner.n_views} views x {scanner.n_channels} channels | s |")
    print("|---|---|")
    print(f"| real slice, the first of its geometry | {first_s:.3f} |")
    for name, values in seconds.items():
        print(f"| {name} | {median(values):.3f} |")
    inserted, with_match, counted = (round(median(values), 3) for values in seconds.values())
    return {
        "pair_s": inserted,
        "pair_first_s": round(first_s, 3),
        "pair_matched_s": with_match,
        "pair_simulated_s": counted,
    }


if __name__ == "__main__":
    main()
