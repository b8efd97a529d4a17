"""What does a look through the frozen vision model cost? One 504 x 504 slice of the sample volume.

    python benchmarks/pvm.py [--rounds 5]

Each row is the median over rounds, in which all rows take turns, against float32 up to block 12. `difference`
is that of block 4's map from float32's, as a share of its norm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor

from alden_lite.alden.pvm import crop_to_grid, load_pvm
from alden_lite.data.sample import load_sample
from alden_lite.engine.speed import bfloat16_gain
from alden_lite.explain.feature_cache import FeatureCache

Look = Callable[[Tensor], list[Tensor]]


def main() -> None:
    """Print one table and, as the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    hu = crop_to_grid(torch.from_numpy(load_sample().hu[[40]]).float()[:, None])
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        looks = ways(FeatureCache(folder))
        block_4 = {name: look(hu)[0] for name, look in looks.items()}  # also warms up, and fills the cache
        times: dict[str, list[float]] = {name: [] for name in looks}
        for _ in range(options.rounds):
            for name, look in looks.items():
                start = time.perf_counter()
                look(hu)
                times[name].append(1000 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    whole = medians["float32, up to block 12"]
    print("| way | ms a slice | times faster | difference |")
    print("|---|---|---|---|")
    exact = block_4["float32, up to block 12"]
    for name, ms in medians.items():
        off = float((block_4[name] - exact).norm() / exact.norm())
        print(f"| {name} | {ms:.0f} | {whole / ms:.1f} | {off:.1e} |")
    gain = bfloat16_gain("cpu")
    print(f"\nThis machine multiplies matrices {gain:.1f} times faster in bfloat16 than in float32.\n")
    keys = {
        "stop_early": "float32, up to block 4",
        "bfloat16": "bfloat16, up to block 12",
        "cache": "read again",
    }
    print(json.dumps({f"{key}_speedup": whole / medians[name] for key, name in keys.items()}))


def ways(cache: FeatureCache) -> dict[str, Look]:
    """Ways to the map of block 4, and of 8 and 12 where the row goes that far."""
    exact, shallow = load_pvm(), load_pvm(taps=(4,))
    return {
        "float32, up to block 12": exact,
        "float32, up to block 4": shallow,
        "bfloat16, up to block 12": load_pvm(precision="bfloat16"),
        "read again": lambda hu: cache.maps(exact, hu),
    }


if __name__ == "__main__":
    main()
