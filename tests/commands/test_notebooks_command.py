"""`alden-lite notebooks` copies all or nothing and overwrites nothing; `make lab` opens such copies."""

import errno
import re
import shutil
from pathlib import Path

import pytest

import alden_lite.__main__ as command_line
from alden_lite.commands import doctor, notebooks
from alden_lite.commands.notebooks import NotebooksError, copy_notebooks, course_notebooks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def three(tmp_path, monkeypatch):
    """An installed package with three tiny notebooks."""
    package = tmp_path / "site-packages" / "alden_lite"
    (package / "_notebooks").mkdir(parents=True)
    for name in ("02_two", "00_none", "01_one"):
        (package / "_notebooks" / f"{name}.ipynb").write_text(name, encoding="utf-8")
    monkeypatch.setattr(notebooks, "__file__", str(package / "commands" / "notebooks.py"))
    return package


def contents(folder):
    return {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}


ALL = {"00_none.ipynb": "00_none", "01_one.ipynb": "01_one", "02_two.ipynb": "02_two"}


# Finding them


def test_in_a_checkout_the_notebooks_are_those_of_the_checkout():
    assert course_notebooks() == sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_in_an_installed_package_they_are_within_it_and_in_order(three):
    assert [file.name for file in course_notebooks()] == sorted(ALL)
    assert {file.parent for file in course_notebooks()} == {three / "_notebooks"}


def test_a_package_without_notebooks_says_so_whoever_asks(three, tmp_path, capsys, monkeypatch):
    shutil.rmtree(three / "_notebooks")
    others = three.parent / "notebooks"  # of another package: not ours to take
    others.mkdir()
    (others / "00_other.ipynb").touch()
    for arguments in (["notebooks", str(tmp_path / "mine")], ["course", "--out", str(tmp_path / "out")]):
        assert command_line.main(arguments) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: alden_lite came without its notebooks: there are none in ")
        assert "pip install --force-reinstall" in text
    assert not (tmp_path / "mine").exists() and not (tmp_path / "out").exists()
    for name, known in (("NEEDED", ()), ("_assets", dict), ("_device", str)):
        monkeypatch.setattr(doctor, name, known)
    assert command_line.main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("missing: notebooks\n")


# Copying them


@pytest.mark.usefixtures("three")
def test_they_are_copied_into_a_folder_that_is_made(tmp_path, capsys):
    mine = tmp_path / "new" / "mine"
    assert command_line.main(["notebooks", str(mine)]) == 0
    assert contents(mine) == ALL
    assert capsys.readouterr().out == f"notebooks in {mine}: 3 copied, 0 kept as they were\n"


@pytest.mark.usefixtures("three")
def test_copies_can_be_written_even_if_the_package_cannot(three, tmp_path):
    (three / "_notebooks" / "01_one.ipynb").chmod(0o444)
    copy_notebooks(tmp_path / "mine")
    assert (tmp_path / "mine" / "01_one.ipynb").stat().st_mode & 0o200


@pytest.mark.usefixtures("three")
def test_a_name_that_is_taken_stops_it_all(tmp_path, capsys):
    before = {"01_one.ipynb": "my work", "notes.txt": "mine"}
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, text in before.items():
        (mine / name).write_text(text, encoding="utf-8")
    assert command_line.main(["notebooks", str(mine)]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: nothing was copied: {mine} already has 01_one.ipynb. ")
    assert "--missing" in text
    assert contents(mine) == before


@pytest.mark.usefixtures("three")
def test_a_link_that_leads_nowhere_is_a_taken_name_too(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "02_two.ipynb").symlink_to(tmp_path / "gone.ipynb")
    with pytest.raises(NotebooksError, match="already has 02_two.ipynb"):
        copy_notebooks(mine)
    assert [file.name for file in mine.iterdir()] == ["02_two.ipynb"]


@pytest.mark.usefixtures("three")
def test_only_missing_ones_are_copied_if_asked_and_yours_stay(tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "01_one.ipynb").write_text("my work", encoding="utf-8")
    assert command_line.main(["notebooks", str(mine), "--missing"]) == 0
    assert contents(mine) == ALL | {"01_one.ipynb": "my work"}
    text = capsys.readouterr().out
    assert "2 copied, 1 kept as they were" in text and "move yours away" in text
    assert command_line.main(["notebooks", str(mine), "--missing"]) == 0
    assert "0 copied, 3 kept as they were" in capsys.readouterr().out
    assert contents(mine) == ALL | {"01_one.ipynb": "my work"}


@pytest.mark.usefixtures("three")
def test_a_file_in_the_folders_place_is_an_error(tmp_path, capsys):
    (tmp_path / "mine").write_text("text", encoding="utf-8")
    assert command_line.main(["notebooks", str(tmp_path / "mine"), "--missing"]) == 2
    assert "mine is a file: name a folder" in capsys.readouterr().err
    assert command_line.main(["notebooks", str(tmp_path / "mine" / "below")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "text"


@pytest.mark.usefixtures("three")
def test_a_full_disk_leaves_none_of_them(tmp_path, capsys, monkeypatch):
    copy, full = shutil.copyfile, OSError(errno.ENOSPC, "No space left on device")

    def until_full(source, target):
        if Path(source).name == "02_two.ipynb":
            raise full
        return copy(source, target)

    monkeypatch.setattr(notebooks.shutil, "copyfile", until_full)
    assert command_line.main(["notebooks", str(tmp_path / "mine")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "mine").iterdir()) == []


# make lab


def lab() -> str:
    """What `make lab` runs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^lab:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    return recipe


def test_make_lab_opens_copies_that_git_does_not_see():
    assert re.findall(r"alden_lite notebooks (.*)", lab()) == ["runs/lab --missing"]
    (opened,) = re.findall(r"jupyter lab (\S+)", lab())
    assert opened == "runs/lab"
    assert "runs/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_make_lab_asks_no_server_for_news(tmp_path):
    from jupyterlab.commands import get_app_dir
    from jupyterlab_server.settings_utils import get_settings

    (folder,) = re.findall(r'--LabApp\.app_settings_dir="\$\(CURDIR\)/(\S+)"', lab())
    name = "@jupyterlab/apputils-extension:notification"
    schemas = Path(get_app_dir()) / "schemas"
    settings, _ = get_settings(str(ROOT / folder), str(schemas), str(tmp_path), schema_name=name)
    properties = settings["schema"]["properties"]
    assert properties["fetchNews"]["default"] == "false"
    assert properties["checkForUpdates"]["default"] is False
