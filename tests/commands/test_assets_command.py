"""`alden-lite assets`: fetch, check, list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from alden_lite.commands import assets as assets_command
from alden_lite.data import assets
from alden_lite.data.assets import Asset
from made_assets import in_cache


def test_the_command_fetches_and_prints_a_table(
    toy: Asset, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assets_command.main(["--check"]) == 1
    printed = capsys.readouterr()
    assert "is missing" in printed.out and "python -m alden_lite assets" in printed.err
    assert not empty_cache.exists()
    assert assets_command.main([]) == 0
    assert "ready" in capsys.readouterr().out
    assert assets_command.main(["--check"]) == 0


def test_the_command_fetches_only_what_is_named(toy: Asset, empty_cache: Path) -> None:
    assets.ASSETS["other"] = replace(toy, name="other", filename="other.bin")
    assert assets_command.main(["--only", "other"]) == 0
    assert in_cache(empty_cache) == ["other.bin"]


def test_the_command_lists_the_registry_with_citations(
    toy: Asset, capsys: pytest.CaptureFixture[str]
) -> None:
    assert assets_command.main(["--list"]) == 0
    assert "nobody (2026)" in capsys.readouterr().out


def test_the_command_reports_failure_without_a_traceback(
    toy: Asset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shelf" / toy.wheel.filename).unlink()
    assert assets_command.main([]) == 1
    assert "No matching distribution" in capsys.readouterr().err


def test_the_command_refuses_unknown_names(toy: Asset) -> None:
    with pytest.raises(SystemExit) as caught:
        assets_command.main(["--only", "mri"])
    assert caught.value.code == 2
