"""Arrays in files: whatever is damaged is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alden_lite.data.npz import read_npz, write_npz


def test_damage_anywhere_is_noticed(tmp_path: Path) -> None:
    file, one, other = tmp_path / "x.npz", np.arange(3.0), np.ones((2, 2), np.float32)
    write_npz(file, one=one, other=other)
    content = file.read_bytes()
    damaged = [content[:length] for length in (0, 1, len(content) // 2, len(content) - 1)]
    damaged += [
        content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        for place in range(len(content))
    ]
    for content in damaged:
        file.write_bytes(content)
        arrays = read_npz(file, ("one", "other"))  # whatever else it is, no exception and no other number
        assert arrays is None or all(map(np.array_equal, arrays.values(), (one, other)))


def test_an_array_that_is_not_there_is_damage(tmp_path: Path) -> None:
    write_npz(tmp_path / "x.npz", one=np.zeros(2))
    assert read_npz(tmp_path / "x.npz", ("one", "other")) is None
    assert list(read_npz(tmp_path / "x.npz", ("one",)) or ()) == ["one"]
