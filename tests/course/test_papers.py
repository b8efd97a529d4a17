"""The papers around the code: links that lead somewhere, one map, examples that run, versions that agree."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_project import PROJECT, ROOT, WINGS, constraints, project_files

PAGES = sorted(file for file in project_files() if file.suffix == ".md")


KEPT = {path.resolve() for file in project_files() for path in (file, *file.parents)}
"""Files of the project and their folders; not what a run left behind, which only this machine has."""


def links(page: Path) -> list[str]:
    """Where a page's links into the project lead; blocks of code have none."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings: small letters, hyphens for blanks, no other punctuation."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_into_the_project_leads_to_what_the_project_keeps(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page.resolve()
        assert target in KEPT and target.is_relative_to(ROOT.resolve()), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_names_the_method_with_its_length() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 9000
    lines = sum(
        len(f.read_text(encoding="utf-8").splitlines()) for f in (ROOT / "alden_lite/alden").glob("*.py")
    )
    assert lines <= 2000
    for page in (text.split("![")[0], (ROOT / "alden_lite" / "README.md").read_text(encoding="utf-8")):
        assert f"{lines:,} lines" in page, f"alden_lite/alden has {lines:,} lines"
        assert "training.py" in page


def test_the_map_has_every_wing_in_the_order_of_the_rule() -> None:
    text = (ROOT / "alden_lite" / "README.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| \[`(\w+)/`\]\(\1\) \|", text, re.MULTILINE)) == WINGS
    for wing, named in re.findall(r"^\| \[`(\w+)/`\].*\| (.*?) \|$", text, re.MULTILINE):
        for file in re.findall(r"`([\w/]+\.py)`", named):
            assert (ROOT / "alden_lite" / wing / file).exists(), f"{wing}/{file}"


def test_the_neighbour_of_the_example_learns_what_it_says() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "assert after < before / 2" in example
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    assert names["run"].done == names["plan"].steps


def test_the_archive_says_what_the_citation_says() -> None:
    archive = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert archive["title"] == citation["title"]
    assert archive["creators"] == citation["authors"]
    assert archive["license"] == citation["license"] == PROJECT["license"]
    assert archive["keywords"] == citation["keywords"]
    assert " ".join(archive["description"].split()) == " ".join(citation["abstract"].split())
    (paper,) = citation["references"]
    (related,) = archive["related_identifiers"]
    assert related["identifier"] in [one["value"] for one in paper["identifiers"]]


def test_what_runs_before_a_commit_is_what_the_tests_run() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    versions = {repo["repo"].rsplit("/", 1)[1]: repo["rev"].removeprefix("v") for repo in hooks}
    assert versions["ruff-pre-commit"] == constraints()["ruff"]
    assert versions["nbstripout"] == constraints()["nbstripout"]
    (limit,) = re.findall(r"--maxkb=(\d+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert max(file.stat().st_size for file in project_files()) <= 1024 * int(limit)


def test_notebooks_are_as_nbstripout_would_leave_them() -> None:
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    (arguments,) = (one["args"] for repo in hooks for one in repo["hooks"] if one["id"] == "nbstripout")
    command = [sys.executable, "-m", "nbstripout", "--verify", *arguments, *notebooks]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_who_reports_a_fault_is_asked_for_doctors_words_and_for_no_patient() -> None:
    form = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
    fields = {one.get("id"): one for one in yaml.safe_load(form)["body"]}
    assert "alden_lite doctor" in fields["doctor"]["attributes"]["description"]
    assert all(fields[name]["validations"]["required"] for name in ("doctor", "done", "expected", "got"))
    assert "no patient data" in form
