"""CI does in public what people do by hand. Only GitHub can run it; here is what can be held without."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in sorted(FOLDER.glob("*.y*ml"))}
# BaseLoader leaves texts as they stand: YAML's own reading of `on` is True, and of 3.10 is 3.1.
FLOWS: dict[str, dict[str, Any]] = {name: yaml.load(text, yaml.BaseLoader) for name, text in TEXTS.items()}
JOBS = {(name, job): parts for name, flow in FLOWS.items() for job, parts in flow["jobs"].items()}
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")

every_workflow = pytest.mark.parametrize("name", TEXTS)
every_job = pytest.mark.parametrize("job", JOBS, ids=" ".join)


def commands(job: tuple[str, str]) -> list[str]:
    """What a job runs, one command a line, without where its output goes."""
    lines = "\n".join(step["run"] for step in JOBS[job]["steps"] if "run" in step).splitlines()
    return [line.partition(" > ")[0] for line in lines]


def actions(job: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """The actions that a job uses, by name without version, and what they are told."""
    steps = [step for step in JOBS[job]["steps"] if "uses" in step]
    return {step["uses"].partition("@")[0]: step.get("with", {}) for step in steps}


def supported() -> list[str]:
    """The versions of Python that pyproject.toml promises, oldest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.M
    )
    return sorted(found, key=lambda version: int(version.partition(".")[2]))


@every_workflow
def test_a_workflow_follows_githubs_schema(name: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    result = subprocess.run([*check, FOLDER / name], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@every_workflow
def test_a_workflow_may_read_and_nothing_else(name: str) -> None:
    assert FLOWS[name]["permissions"] == {"contents": "read"}
    assert not [job for job, parts in FLOWS[name]["jobs"].items() if "permissions" in parts]
    assert "secrets" not in TEXTS[name]
    assert not {"pull_request_target", "workflow_run"} & set(FLOWS[name]["on"])  # they run with more rights


@every_workflow
def test_a_newer_run_ends_the_older_one(name: str) -> None:
    concurrency = FLOWS[name]["concurrency"]
    assert concurrency["cancel-in-progress"] == "true"
    assert {"${{ github.workflow }}", "${{ github.ref }}"} <= set(
        re.findall(r"\$\{\{.*?\}\}", concurrency["group"])
    )


@every_job
def test_a_job_uses_githubs_own_actions_by_version_and_ends_in_time(job: tuple[str, str]) -> None:
    used = [step["uses"] for step in JOBS[job]["steps"] if "uses" in step]
    assert not [one for one in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", one)]
    assert actions(job)["actions/checkout"]["persist-credentials"] == "false"
    assert int(JOBS[job]["timeout-minutes"]) <= 120


def test_one_action_has_one_version() -> None:
    used = set(re.findall(r"uses: (\S+)", "\n".join(TEXTS.values())))
    assert len({one.partition("@")[0] for one in used}) == len(used)


@every_job
def test_a_job_ends_with_the_tests_and_runs_what_the_page_tells_people_to_run(job: tuple[str, str]) -> None:
    told = "\n".join(re.findall(r"`[^`\n]+`", PAGE) + re.findall(r"```.*?```", PAGE, re.DOTALL))
    assert not [command for command in commands(job) if command not in told]
    assert commands(job)[-1] in ("bash .ci/run", "python -m pytest -n 2")


def test_without_make_each_command_comes_before_those_that_need_it() -> None:
    install, *between, tests = commands(("tests.yml", "by-hand"))
    assert install == "pip install -c constraints.txt -e '.[dev]'"
    assert between == ["python -m playwright install chromium", "python -m alden_lite assets"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(command in readme for command in (install, between[1], tests)), "README's own commands"
    assert tests.startswith("python -m pytest")
    assert {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} <= set(JOBS["tests.yml", "by-hand"]["env"])


def test_the_weekly_run_takes_the_newest_versions_and_shows_them() -> None:
    job = ("newest.yml", "unpinned")
    assert set(FLOWS["newest.yml"]["on"]) == {"schedule", "workflow_dispatch"}
    assert "constraints" not in " ".join(commands(job)) + str(JOBS[job].get("env"))
    assert "actions/cache" not in actions(job)
    (written,) = re.findall(r'pip freeze .*> "\$RUNNER_TEMP/(\S+)"', TEXTS["newest.yml"])
    assert actions(job)["actions/upload-artifact"]["path"] == "${{ runner.temp }}/" + written


def test_linux_runs_every_python_that_is_promised_and_make_takes_it() -> None:
    linux = JOBS["tests.yml", "linux"]
    assert linux["strategy"]["matrix"]["python"] == supported()
    assert actions(("tests.yml", "linux"))["actions/setup-python"]["python-version"] == "${{ matrix.python }}"
    assert linux["env"]["PYTHON"] == "python${{ matrix.python }}"
    assert re.search(r"^PYTHON \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)  # gives way to it


def test_the_other_jobs_have_a_python_that_is_promised_and_the_weekly_one_the_newest() -> None:
    python = {job: actions(job)["actions/setup-python"]["python-version"] for job in JOBS}
    assert python["tests.yml", "by-hand"] in supported()
    assert python["newest.yml", "unpinned"] == supported()[-1]


@every_job
def test_what_is_kept_between_runs_is_named_by_what_it_is_made_from(job: tuple[str, str]) -> None:
    kept = actions(job)
    if "cache" in kept["actions/setup-python"]:
        assert kept["actions/setup-python"]["cache-dependency-path"] == "constraints.txt"
    if "actions/cache" in kept:
        files = re.findall(r"'([^']+)'", kept["actions/cache"]["key"])
        assert files == ["alden_lite/data/assets.py", "alden_lite/data/convert.py"]
        assert all((ROOT / file).is_file() for file in files)
        assert kept["actions/cache"]["path"] == "${{ env.ALDEN_LITE_CACHE }}/*.*"
        assert FLOWS[job[0]]["env"]["ALDEN_LITE_CACHE"].startswith(
            "~/"
        )  # both pip's user and the action know it


@every_job
def test_the_page_explains_every_job(job: tuple[str, str]) -> None:
    name, own = job
    assert f"[`{name}`]({name})" in PAGE
    assert f"`{own}`" in PAGE
