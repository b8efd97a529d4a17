"""`alden-lite doctor`: versions, and what is missing."""

import sys

import alden_lite.__main__ as command_line
from alden_lite.commands import doctor


def test_doctor_lists_versions_and_fails_if_something_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_assets", lambda: {"ct": "ready"})
    assert command_line.main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in (*doctor.NEEDED, "python", "cores", "device", "ct"))
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no_such_package"))
    monkeypatch.setattr(doctor, "_assets", lambda: {"ct": "asset 'ct' is not there"})
    assert command_line.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing: no_such_package, ct" in out
    assert "python -m alden_lite assets" in out


def test_doctor_says_how_to_get_what_has_no_wheel_everywhere(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_assets", lambda: {"ct": "ready"})
    monkeypatch.setitem(sys.modules, "finufft", None)
    assert command_line.main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "missing: finufft" in out and "it takes cmake and a C++ compiler" in out
