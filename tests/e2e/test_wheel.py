"""The built wheel, installed in an environment of its own, away from the project's folder."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

PACKAGES = ["popfactory", "retrieval_server", "ui", "index_builder", "curation", "captioner", "spine"]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)],
        folder,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with the wheel, and the dependencies of the one that tests.

    The dependencies' folder comes by a .pth file: Python appends it to the path, and does not read the .pth
    files in it, so the editable install there stays unseen.
    """
    folder = tmp_path_factory.mktemp("clean") / "venv"
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    python = folder / "bin" / "python"
    own = Path(
        _run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip()
    )
    theirs = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (own / "dependencies.pth").write_text("\n".join(theirs), encoding="utf-8")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    _run([*pip, "--force-reinstall", str(wheel)], folder)
    return folder / "bin"


def test_the_wheel_holds_the_packages_with_their_data_and_nothing_else(root, wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", *PACKAGES], cwd=root, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("not a git checkout: nothing says which files are the project's")

    assert {name.partition("/")[0] for name in names} == set(PACKAGES)
    assert {name for name in tracked.stdout.split("\0") if name and (root / name).exists()} - names == set()
    documents = {f"ui/docs/{path.name}" for path in (root / "docs").glob("*.md")}
    assert documents and {name for name in names if name.startswith("ui/docs/")} == documents


def test_the_packages_come_from_the_wheel(root, installed, tmp_path):
    code = f"import importlib; print(*(importlib.import_module(n).__file__ for n in {PACKAGES}), sep='\\n')"

    files = _run([str(installed / "python"), "-c", code], tmp_path).splitlines()

    assert len(files) == len(PACKAGES)
    assert all(Path(file).is_relative_to(installed.parent) for file in files), files
    assert not any(Path(file).is_relative_to(root) for file in files), files


def test_the_installed_command_tells_its_version_and_commands(root, installed, tmp_path):
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

    assert version in _run([str(installed / "popfactory"), "--version"], tmp_path)
    assert "demo" in _run([str(installed / "popfactory"), "--help"], tmp_path)


def test_the_installed_demo_ends_with_a_caption_for_each_released_row(installed, tmp_path):
    command = [str(installed / "popfactory"), "demo", "run", "--concepts", "60", "--pool", "240"]

    _run(command, tmp_path)

    (release,) = (tmp_path / "run" / "release").glob("*/dataset.parquet")
    table = pq.read_table(release)
    assert table.num_rows > 0
    assert all(caption and caption.strip() for caption in table["llava_caption"].to_pylist())


def _run(command: list[str], folder: Path) -> str:
    """Run it with no way to the network but loopback, and no way to the project's folder but its install."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    nowhere = "http://127.0.0.1:9"
    closed = {
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "ALL_PROXY": nowhere,
        "no_proxy": "127.0.0.1,localhost",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    done = subprocess.run(command, cwd=folder, env=kept | closed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{command}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout
