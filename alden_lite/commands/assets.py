"""`alden-lite assets`: fetch the sample CT and the weights once, or verify them."""

from __future__ import annotations

import argparse
import sys

from alden_lite.data import assets as registry
from alden_lite.data.assets import (
    Asset,
    AssetError,
    cache_folder,
    fetch,
    problem_of,
    remedy_for,
    requirement_of,
    select_assets,
)

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """`alden-lite assets`: fetch what is missing, and say what is there.

    Args:
        argv: the arguments after `assets`: `--check`, `--list`, `--only NAME ...`.

    Returns:
        The exit status: 0 if all assets asked for are there, 1 if not.
    """
    parser = argparse.ArgumentParser(
        prog="alden-lite assets", description="Fetch the sample CT and the weights."
    )
    parser.add_argument("--check", action="store_true", help="download nothing, only verify")
    parser.add_argument("--list", action="store_true", help="print the registry with citations")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=sorted(registry.ASSETS))
    options = parser.parse_args(argv)
    assets = select_assets(options.only)
    if options.list:
        print("\n\n".join(map(_entry, assets)))
        return 0
    failure = ""
    if not options.check:
        try:
            fetch([asset.name for asset in assets])
        except AssetError as error:
            failure = str(error)
    problems = {asset.name: problem_of(asset) for asset in assets}
    _print_table(assets, problems)
    first = next((asset for asset in assets if problems[asset.name]), None)
    if first is not None:
        print(f"\n{failure or remedy_for(first)}", file=sys.stderr)
    return 0 if first is None else 1


# Saying what is there


def _print_table(assets: list[Asset], problems: dict[str, str | None]) -> None:
    rows = [("name", "size", "licence", "from", "status")]
    for asset in assets:
        status = problems[asset.name] or "ready"
        size = f"{asset.size / 1e6:.1f} MB" if asset.size > 1e5 else f"{asset.size / 1e3:.1f} kB"
        rows.append((asset.name, size, asset.licence, requirement_of(asset.wheel), status))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"in {cache_folder()}")


def _entry(asset: Asset) -> str:
    return (
        f"{asset.name}: {asset.purpose}\n"
        f"  file      {asset.filename}, {asset.size:,} bytes, SHA-256 {asset.sha256}\n"
        f"  from      {asset.member} in {requirement_of(asset.wheel)} on PyPI\n"
        f"  licence   {asset.licence}\n"
        f"  citation  {asset.citation}"
    )
