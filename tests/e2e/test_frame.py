"""The frame of the project: what its files promise to those who install, check and publish it."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ["popfactory", "retrieval_server", "ui", "index_builder", "curation", "captioner", "spine"]
# What belongs to the place where somebody works, not to the project: folders of one machine, and words for
# who wrote what when.
WORKPLACE = re.compile(
    r"(^|[^\w.])/(work|farm|root)/"
    r"|\bissues? #\d"
    r"|(?<!user[-_ ])\bagents?\b(?!=user_agent)"
    r"|\bsession of\b",
    re.IGNORECASE,
)
# HTTP's word for a program that asks, and that of robots.txt.
USER_AGENTS = re.compile(r"\bagents?\b", re.IGNORECASE)
SPEAK_HTTP = {Path("spine/web.py"), Path("spine/robots.py")}


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_that_the_wheel_names_exists(root, project):
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"] == [*PACKAGES, "docs"]
    assert [name for name in PACKAGES if not (root / name / "__init__.py").is_file()] == []


def test_types_and_import_contracts_cover_every_package(project):
    assert project["tool"]["mypy"]["packages"] == PACKAGES
    assert project["tool"]["mypy"]["strict"] is True
    assert project["tool"]["importlinter"]["root_packages"] == PACKAGES


def test_faiss_comes_by_exactly_one_extra(project):
    extras = project["project"]["optional-dependencies"]

    assert not any("faiss" in requirement for requirement in project["project"]["dependencies"])
    assert [name for name in extras if any("faiss" in requirement for requirement in extras[name])] == [
        "cpu",
        "gpu",
    ]


def test_constraints_are_names_and_versions_only_and_pin_every_dependency(root, project):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]

    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin)] == []
    extras = project["project"]["optional-dependencies"]
    wanted = {_name(line) for line in [*project["project"]["dependencies"], *extras["cpu"], *extras["dev"]]}
    assert wanted - {_name(pin) for pin in pins} == set()


def test_continuous_integration_runs_make_test(root):
    script = root / ".ci" / "run"

    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8").splitlines()


def test_make_test_runs_all_three_tiers(root):
    planned = subprocess.run(
        ["make", "--dry-run", "test"], cwd=root, capture_output=True, text=True, check=True
    ).stdout

    assert "pytest tests/unit tests/integration tests/e2e" in planned


def test_imports_go_down_the_floors(root):
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as main; main()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_every_public_name_has_its_docstring(root):
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        "--select",
        "D100,D101,D102,D103,D104",
        *PACKAGES,
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_no_file_names_the_place_it_was_written_at(root):
    found = []
    for path in _tracked_files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a model
        found += [
            f"{path.relative_to(root)}:{number}: {line.strip()[:120]}"
            for number, line in enumerate(text.splitlines(), start=1)
            if WORKPLACE.search(USER_AGENTS.sub("", line) if path.relative_to(root) in SPEAK_HTTP else line)
        ]

    assert found == []


def _tracked_files(root: Path) -> list[Path]:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout: nothing says which files are the project's")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    paths = [root / os.fsdecode(name) for name in listed.split(b"\0") if name]
    return [path for path in paths if path.is_file() and path != Path(__file__)]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()
