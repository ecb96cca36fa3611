"""Lets autofaiss choose and build an index: the real command, in an environment of its own.

It needs packages older than ours (numpy 1, an older FAISS), so it is never imported here. `set_up` makes the
environment, once and only when it is asked to; what it builds is read and checked like any other index.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from index_builder.indexing.index_file import INDEX_FILE
from spine.errors import ConfigError, DataError, ServiceError
from spine.publish import publish_json, publishing
from spine.run import Run

REQUIREMENTS = ("autofaiss==2.18.0", "numpy<2", "pyarrow<22", "faiss-cpu<1.14")
"""What the environment holds."""

_MARK = "popfactory.json"  # written last: the environment is whole
_PYTHONS = ((3, 10), (3, 12))  # those that numpy 1 and this FAISS have wheels for


def environment() -> Path:
    """Where the environment lies: popfactory/autofaiss in the user's folder for data."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "popfactory" / "autofaiss"


def set_up(python: str = "") -> Path:
    """Make the environment; one that is there and whole stays.

    Args:
        python: The interpreter it gets, 3.10 to 3.12; empty for the one that runs this.

    Returns:
        Its folder.

    Raises:
        ConfigError: There is no such interpreter, or not of such a version.
        ServiceError: pip can't get the packages.
    """
    folder, python = environment(), python or sys.executable
    if _is_whole(folder):
        return folder
    version = _output([python, "-c", "import sys; print(sys.version_info[0], sys.version_info[1])"])
    found = tuple(int(part) for part in version.split()) if version is not None else ()
    if not _PYTHONS[0] <= found <= _PYTHONS[1]:
        raise ConfigError(
            f"{python}: Python {'.'.join(map(str, found)) or 'is not there'}, 3.10 to 3.12 was needed for autofaiss;"
            " name one by --python"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    own = str(folder / "bin" / "python")
    pip = [own, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS]
    for command in ([python, "-m", "venv", str(folder)], pip, [own, "-c", "import autofaiss"]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServiceError(f"{folder}: {command[2]} failed: {_last_lines(done.stderr or done.stdout)}")
    publish_json(folder / _MARK, {"requirements": list(REQUIREMENTS)})
    return folder


def build_with_autofaiss(run: Run, memory_bytes: int) -> str:
    """Build index/image.index of pool/ by the command; one that is there stays.

    Returns:
        FAISS's name of the index, as autofaiss tells it; empty for one found built.

    Raises:
        ConfigError: There is no command autofaiss.
        DataError: It made no index.
    """
    path = run.index / INDEX_FILE
    if path.exists():
        return ""
    command = _command()
    with publishing(path) as temporary:
        infos = temporary.with_name(f"{temporary.name}.json")
        arguments = {
            "embeddings": run.pool / "img_emb",
            "index_path": temporary,
            "index_infos_path": infos,
            "file_format": "npy",
            "metric_type": "ip",
            "max_index_memory_usage": f"{memory_bytes // 2**10}K",
            "current_memory_available": f"{3 * memory_bytes // 2**10}K",
            "should_be_memory_mappable": True,
        }
        try:
            done = subprocess.run(
                [command, "build_index", *(f"--{name}={value}" for name, value in arguments.items())],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            )
            key = _key(infos)
        finally:
            infos.unlink(missing_ok=True)
        # It also gives up with exit code 0.
        if done.returncode or not temporary.is_file():
            raise DataError(
                f"autofaiss build_index made no index (exit code {done.returncode}):"
                f" {_last_lines(done.stderr or done.stdout)}"
            )
    return key


def _command() -> str:
    """Its own environment's, else one on PATH."""
    if _is_whole(environment()):
        return str(environment() / "bin" / "autofaiss")
    command = shutil.which("autofaiss")
    if command is None:
        raise ConfigError(
            "[index] builder = 'autofaiss': no command autofaiss found; make an environment of its own with"
            " `popfactory autofaiss`, or set builder = 'planner'"
        )
    return command


def _is_whole(folder: Path) -> bool:
    """Whether the environment is there, with what is required now."""
    try:
        content = json.loads((folder / _MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(content == {"requirements": list(REQUIREMENTS)}) and (folder / "bin" / "autofaiss").is_file()


def _key(infos: Path) -> str:
    try:
        return str(json.loads(infos.read_text(encoding="utf-8")).get("index_key", ""))
    except (OSError, ValueError):
        return ""


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if not done.returncode else None


def _last_lines(text: str) -> str:
    return "; ".join(text.strip().splitlines()[-3:])
