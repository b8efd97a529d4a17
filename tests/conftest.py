"""No test reaches the network, and every executed notebook's time is shown at the end."""

import pytest

from alden_lite.lessons.offline import refuse_network


def pytest_configure() -> None:
    refuse_network("tests")  # loopback stays open: Jupyter kernels need it


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    times = {
        name.removeprefix("seconds of "): value
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name.startswith("seconds of ")
    }
    if times:
        terminalreporter.section("seconds of notebooks (90 each in fast mode)")
        for name, seconds in sorted(times.items()):
            terminalreporter.write_line(f"{seconds:6.1f}  {name}")
