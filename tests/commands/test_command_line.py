"""`alden-lite`: help, and which command gets the arguments."""

import subprocess
import sys

import pytest

import alden_lite.__main__ as command_line


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = (
        "import sys, runpy\nsys.argv = ['alden_lite', '--help']\n"
        "try:\n    runpy.run_module('alden_lite', run_name='__main__')\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'papermill', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert all(name in done.stdout for name in command_line.COMMANDS)
    assert "Not for clinical use" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["cours"]])
def test_a_missing_or_unknown_command_is_a_usage_error(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.main(arguments)
    assert "COMMAND" in capsys.readouterr().err


def test_a_command_gets_the_arguments_after_its_name(capsys):
    with pytest.raises(SystemExit, match="0"):
        command_line.main(["course", "--help"])
    assert "--only" in capsys.readouterr().out
