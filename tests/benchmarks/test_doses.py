"""The benchmark of one model at many doses."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from alden_lite.data.pairs import Pairs
from alden_lite.evaluation.cohorts import Cohort


def test_the_dose_sweep_has_a_row_for_every_dose_kernel_and_model(
    monkeypatch: pytest.MonkeyPatch,
    pairs: Pairs,
    capsys: pytest.CaptureFixture[str],
    benchmark_script: Callable[[str], ModuleType],
    tmp_path: Path,
) -> None:
    module = benchmark_script("doses")
    one = Cohort("sample-test", ["anna"] * 3, pairs, [0.7, 0.8, 0.7])
    twice = replace(one, again=pairs.normal + 3)  # as phantoms are: compared with the other scan
    monkeypatch.setattr(module, "sample_test", lambda dose, every: twice)
    monkeypatch.setattr(module, "real_patients", lambda name, *_, **__: replace(one, name=name))
    monkeypatch.setattr(module, "load_nifti", lambda _: SimpleNamespace(hu=range(3)))
    monkeypatch.setattr(module, "make_pairs", lambda *_, **__: pairs)
    monkeypatch.setattr(module, "load_pvm", lambda _: lambda hu: [torch.cat([hu, hu.roll(1, -1)], 1)])
    page = tmp_path / "doses.md"
    argv = ["doses.py", "--doses", "0.1", "0.5", "--per-dose", "0.5", "--minutes", "0.005"]
    argv += ["--unseen", f"{tmp_path}/chest.nii.gz", "--page", str(page)]
    monkeypatch.setattr(sys, "argv", argv)
    module.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for value in ("0.1", "0.5", "soft", "as it came", "sharp"):
        for method in ("ldct", "l1", "blend", "alden", "l1 for 0.5"):
            assert math.isfinite(figures[f"sample-test.{value}.{method}.grain"])
    assert figures["sample-test.0.1.ldct.grain"] > figures["sample-test.0.1.l1.grain"]
    assert figures["sample-test.0.1.ldct.bias_hu"] == pytest.approx(-3, abs=1)
    assert figures["sample-test.sharp.ldct.bias_hu"] == pytest.approx(0, abs=1)
    text = page.read_text()
    assert text.count("| l1 for 0.5 |") == 2 * 2 + 3, "two sets at two doses, three kernels"
    assert "--unseen chest.nii.gz" in text and "grain is the noise left" in text
    shown = f"{figures['sample-test.sharp.alden.grain']:.2f}"
    assert f"| sample-test | sharp | alden | {shown} |" in text
