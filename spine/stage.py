"""A stage's folder while it is worked on.

`Stage.open` decides what an earlier start left: the finished folder (nothing to do), finished parts
of the same work (go on), or other work (clear it). `Stage.finish` publishes manifest.json last. A
folder without one is unfinished and nobody reads it.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spine.errors import DataError
from spine.manifest import (
    ADVICE,
    CHECKSUM,
    MANIFEST,
    SCHEMA_VERSION,
    Manifest,
    Newer,
    checksum_of,
    file_records,
    files_named_by_hash,
    find_manifest,
    misfit,
    package_versions,
    require_known,
)
from spine.publish import publish_json, sweep

_PLAN = "plan.json"


def read_plan(folder: Path) -> Any:
    """What a stage began with, finished or not: a mapping with parameters and inputs; None where nothing tells."""
    try:
        return json.loads((folder / _PLAN).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's folder, opened for work."""

    name: str
    folder: Path
    parameters: dict[str, Any]
    inputs: dict[str, str]
    published: Manifest | None
    """The manifest when this very work is finished already; then there is nothing to do."""

    @classmethod
    def open(
        cls,
        name: str,
        folder: Path,
        parameters: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        grows_with: Iterable[str] = (),
        force: bool = False,
    ) -> "Stage":
        """Open a stage's folder for work with these parameters on these inputs.

        Finished with the same: `published` is set. Begun with the same: the finished files stay, and
        the stage goes on. Begun or finished with others: the folder is cleared first.

        Args:
            name: The stage, for the manifest.
            folder: Its own folder; everything in it belongs to the stage.
            parameters: Every setting that shapes the result; JSON values.
            inputs: Digests of what is read, by name.
            grows_with: Names of parameters and inputs whose change keeps the finished files, since
                each row stands for itself: a deeper fetch keeps what is fetched.
            force: Clear the folder in any case.

        Raises:
            DataError: It is finished with the same, but one of its files is missing or has another size; or a
                newer popfactory worked on it, and `force` isn't given.
        """
        plain = json.loads(json.dumps(dict(parameters)))
        given = dict(inputs)
        flexible = set(grows_with)
        plan = {
            "schema_version": SCHEMA_VERSION,
            "parameters": {key: value for key, value in plain.items() if key not in flexible},
            "inputs": {key: value for key, value in given.items() if key not in flexible},
        }
        folder.mkdir(parents=True, exist_ok=True)
        begun = None if force else read_plan(folder)
        if isinstance(begun, dict):
            require_known(folder / _PLAN, begun.get("schema_version", 0))
        published = None if force else _published_or_none(folder)
        if published is not None and published.parameters == plain and published.inputs == given:
            _require_files(folder, published)
            return cls(name, folder, plain, given, published)
        (folder / MANIFEST).unlink(missing_ok=True)
        if begun != plan:
            _clear(folder)
            publish_json(folder / _PLAN, plan)
        sweep(folder)
        return cls(name, folder, plain, given, None)

    def finish(
        self,
        counts: Mapping[str, int],
        facts: Mapping[str, Any] | None = None,
        *,
        notes: Iterable[str] = (),
        named_by_hash: Iterable[str] = (),
    ) -> Manifest:
        """Publish the manifest: digests of every file in the folder, written last.

        Args:
            counts: Rows in and out, and those lost by reason.
            facts: What later stages need to know; JSON values.
            notes: Paths of files that tell how the work went and differ each time: no part of the digest.
            named_by_hash: Folders in it whose files are named by their own SHA-256, so that nobody need read
                them all to write this down.
        """
        apart = {name: len(files_named_by_hash(self.folder / name)) for name in named_by_hash}
        manifest = Manifest(
            stage=self.name,
            parameters=self.parameters,
            inputs=self.inputs,
            counts={key: int(value) for key, value in counts.items()},
            facts=json.loads(json.dumps(dict(facts or {}))),
            files=file_records(self.folder, _published_files(self.folder, apart)),
            versions=package_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            notes=list(notes),
            named_by_hash=apart,
        )
        content = asdict(manifest)
        publish_json(self.folder / MANIFEST, content | {CHECKSUM: checksum_of(content)})
        return manifest


def _published_or_none(folder: Path) -> Manifest | None:
    try:
        return find_manifest(folder)
    except Newer:
        raise
    except DataError:  # damaged: the work is done anew
        return None


def _require_files(folder: Path, published: Manifest) -> None:
    """See that what a manifest names is there, by size alone: digests take as long as reading everything."""
    for record in published.files:
        problem = misfit(folder, record)
        if problem is not None:
            raise DataError(f"{problem}; put it back, or {ADVICE}")


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _published_files(folder: Path, apart: Iterable[str] = ()) -> list[Path]:
    """Those to be listed in the manifest: temporary ones aside, and those in folders of files named by hash."""
    tops = (path for path in folder.iterdir() if path.name not in set(apart))
    found = (path for top in tops for path in ((top,) if top.is_file() else top.rglob("*")))
    files = (path for path in found if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.relative_to(folder).as_posix() not in (MANIFEST, _PLAN))
