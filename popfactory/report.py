"""What the command prints of a run: the funnel, the stages, the jobs; the same as JSON for scripts."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curation.funnel import funnel
from curation.release import draft
from curation.release_diff import Blocked, blocked_rows, difference
from curation.revisions import newest, published
from popfactory.pipeline import Outcome
from spine.config import load_config, uses_demo_models
from spine.errors import DataError
from spine.jobs import list_jobs
from spine.journals import Job
from spine.lists import BlockLists
from spine.manifest import MANIFEST, find_manifest, read_manifest, verify
from spine.manifest import remove_damaged as take_away
from spine.run import SIDE_FOLDERS, STAGES, Run

_JOBS_SHOWN = 5
_ROWS_SHOWN = 20
_CHANGES_SHOWN = 200
_ROW = (
    *("id", "caption", "caption_edited_by", "centroid_id", "centroid_label", "width", "height", "aesthetic"),
    *("selected_by", "prompt_id", "caption_model"),
)


def finished_folders(run: Run) -> list[Path]:
    """The folders of all finished stages and releases, in the order of the data."""
    stages = [run.folder / name for name in (*STAGES, *SIDE_FOLDERS) if name != "release"]
    releases = sorted(run.releases.iterdir()) if run.releases.is_dir() else []
    return [folder for folder in [*stages, *releases] if (folder / MANIFEST).is_file()]


def _previews(run: Run) -> list[Path]:
    """The folders of finished previews of captions."""
    found = sorted(run.caption_previews.iterdir()) if run.caption_previews.is_dir() else []
    return [folder for folder in found if (folder / MANIFEST).is_file()]


@dataclass(frozen=True, slots=True)
class Verified:
    """What comparing published files with their digests found."""

    folder: str
    finished: int
    """Folders compared: a run's finished stages and releases, or the one release."""
    files: int
    """Files published in them."""
    damaged: list[str]
    """A line for each damaged file that stays."""
    removed: list[str]
    """A line for each damaged file that was taken away."""
    advice: str
    """What to do about those that stay; empty where none do."""

    def told(self) -> str:
        """That all is as published, or what was taken away, in lines.

        Raises:
            DataError: Files are damaged and stay: each is named.
        """
        if self.damaged:
            first = f"{len(self.damaged)} damaged files; {self.advice}:"
            raise DataError("\n".join([first, *self.damaged, *self.removed]))
        if self.removed:
            first = f"{len(self.removed)} damaged files taken away; `popfactory run {self.folder}` makes them anew:"
            return "\n".join([first, *self.removed])
        where = f" in {self.finished} finished stages" if self.finished != 1 else ""
        return f"{self.folder}: {self.files:,} files{where} are as published"


def verified(folder: Path, *, remove_damaged: bool) -> Verified:
    """Compare every published file of a run, or of one release, with its digest.

    Args:
        folder: The run's; or a release's, which may lie anywhere.
        remove_damaged: Take damaged files of stages away; not of releases.

    Raises:
        DataError: It is neither a run nor a release, or a newer popfactory wrote it.
    """
    run = Run(folder)
    is_release = (folder / MANIFEST).is_file() and not run.config.is_file()
    folders = [folder] if is_release else [*finished_folders(run.require()), *_previews(run)]
    removed, damaged = [], []
    for each in folders:
        if remove_damaged and each.parent == run.folder:
            removed += take_away(each)
        else:
            damaged += verify(each)
    advice = (
        "`popfactory release RUN --force` makes a release anew"
        if remove_damaged or is_release
        else "take them away with --remove-damaged and run again; a release is made anew with `release --force`"
    )
    files = 0 if damaged or removed else sum(len(read_manifest(each).files) for each in folders)
    return Verified(str(folder), len(folders), files, damaged, removed, advice if damaged else "")


def funnel_lines(run: Run) -> list[str]:
    """The funnel as a table: what each stage passed on, and where the others were lost."""
    steps = funnel(run)
    width = max((len(step.label) for step in steps), default=0)
    lines = []
    for step in steps:
        lost = ", ".join(f"{reason} {count:,}" for reason, count in step.losses.items())
        lines.append(f"{step.label:<{width}} {step.count:>9,}" + (f"   lost: {lost}" if lost else ""))
    return lines


def status_lines(run: Run) -> list[str]:
    """The funnel, what is finished, and the latest jobs."""
    finished = {name: _manifest_time(run.folder / name) for name in STAGES if name != "release"}
    config = load_config(run.config)
    elsewhere = {"pool", "index"} if config.pool.index or config.pool.server else set()
    lines = [
        f"{name:<11} {time or ('not needed: [pool] names one' if name in elsewhere else 'not finished')}"
        for name, time in finished.items()
    ]
    for folder in finished_folders(run):
        if folder.parent == run.releases:
            lines.append(f"{'release':<11} {_manifest_time(folder)}   {folder}")
    table = funnel_lines(run)
    if table:
        lines += ["", *table]
    jobs = list_jobs(run)[:_JOBS_SHOWN]
    if jobs:
        lines += ["", *(_job_line(job) for job in jobs)]
    if uses_demo_models(config):
        lines += ["", "demo models: captions and scores come from small models that know only drawn scenes"]
    return lines


def tell_difference(run: Run, old: str, new: str | None, *, as_json: bool) -> str:
    """What differs between two releases, as lines or as one JSON object.

    Args:
        run: Whose they are.
        old: The earlier one, by its folder's name or its path.
        new: The later one likewise; None for the newest of the name and version in the settings.
        as_json: One JSON object instead of lines.

    Raises:
        DataError: One of them isn't there.
    """
    release = load_config(run.config).release
    found = difference(run, old, new or newest(run, release.name, release.version).name)
    return json.dumps(asdict(found), ensure_ascii=False) if as_json else "\n".join(found.lines())


def tell_draft(run: Run, *, as_json: bool) -> str:
    """What `release` would publish now, as lines or as one JSON object with its card and some of its rows.

    Raises:
        DataError: A stage isn't finished, or there is no row to release.
    """
    found = draft(run)
    table, differs = found.dataset.table, found.difference
    if not as_json:
        what = (
            f"{found.difference.old} stays: it is this very release"
            if found.stands and found.difference
            else (f"{run.releases / found.name} would have {table.num_rows:,} rows")
        )
        left = [f"left out: {reason} {count:,}" for reason, count in found.dataset.left_out.items()]
        return "\n".join([what, *left, *found.outdated, *(differs.lines() if differs else [])])
    chosen = sorted(random.Random(0).sample(range(table.num_rows), min(_ROWS_SHOWN, table.num_rows)))
    kinds = Counter(change.kind for change in differs.changes) if differs else Counter()
    content = {
        "name": found.name,
        "stands": found.stands,
        "released": table.num_rows,
        "left_out": found.dataset.left_out,
        "outdated": found.outdated,
        "difference": differs
        and {
            "old": differs.old,
            "new": differs.new,
            "same": differs.same,
            **{kind: kinds[kind] for kind in ("removed", "added", "changed")},
            "changes": [asdict(change) for change in differs.changes[:_CHANGES_SHOWN]],
        },
        "rows": table.select(list(_ROW)).take(chosen).to_pylist(),
        "card": found.card,
    }
    return json.dumps(content, ensure_ascii=False)


def tell_blocked(run: Run, found: Sequence[Blocked]) -> str:
    """That no list names a row of any release, as a line.

    Raises:
        DataError: Lists do; the message names each row.
    """
    if found:
        told = "\n".join(each.line() for each in found)
        raise DataError(f"{len(found):,} released rows are on a list by now; delete their releases:\n{told}")
    names = [folder.name for folder in published(run)]
    return f"{run.folder}: no list names a row of {', '.join(names) or 'any release'}"


def blocked_json(run: Run, found: Sequence[Blocked]) -> dict[str, Any]:
    """What `release --check --json` prints."""
    return {
        "releases": [folder.name for folder in published(run)],
        "blocked": [asdict(each) for each in found],
    }


def listed_rows(run: Run) -> list[Blocked]:
    """Rows of the run's releases that a list names by now.

    Raises:
        ConfigError: A list can't be read.
    """
    return blocked_rows(run, BlockLists.load(load_config(run.config).lists, run.folder))


def status_json(run: Run) -> dict[str, Any]:
    """What `status --json` prints."""
    stages = {}
    for folder in finished_folders(run):
        manifest = find_manifest(folder)
        if manifest is not None:
            name = f"release/{folder.name}" if folder.parent == run.releases else folder.name
            stages[name] = {"counts": manifest.counts, "facts": manifest.facts, "created": manifest.created}
    return {
        "run": str(run.folder),
        "demo_models": uses_demo_models(load_config(run.config)),
        "stages": stages,
        "funnel": [{"label": step.label, "count": step.count, "lost": step.losses} for step in funnel(run)],
        "jobs": [_job_json(job) for job in list_jobs(run)],
    }


def outcome_json(run: Run, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What `run --json` prints: which steps worked, and what each came to."""
    return {
        "run": str(run.folder),
        "steps": [
            {"name": outcome.name, "worked": outcome.worked, "counts": outcome.manifest.counts}
            for outcome in outcomes
        ],
    }


def _manifest_time(folder: Path) -> str | None:
    manifest = find_manifest(folder)
    return manifest.created if manifest is not None else None


def _job_line(job: Job) -> str:
    began = datetime.fromtimestamp(job.started, UTC).isoformat(timespec="seconds")
    line = f"{began}  {job.state:<9}  popfactory {' '.join(job.command)}"
    if job.state == "running" and job.stage:
        of = f" of {job.total:,}" if job.total is not None else ""
        rate = f", {job.rate:.1f}/s" if job.rate else ""
        eta = f", {job.eta_s:.0f} s left" if job.eta_s is not None else ""
        line += f"   {job.stage}: {job.done:,}{of} {job.unit}{rate}{eta}"
        failed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(job.failures.items()))
        line += f"; failed: {failed}" if failed else ""
    return line + (f"   {job.message}" if job.message else "")


def _job_json(job: Job) -> dict[str, Any]:
    names = ("job_id", "command", "state", "stage", "total", "done", "unit", "failures", "started", "ended")
    return {name: getattr(job, name) for name in names} | {
        "rate": job.rate,
        "eta_s": job.eta_s,
        "message": job.message,
    }
