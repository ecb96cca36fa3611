"""All stages in the order of the data: what is up to date, what is next, refill of short centroids.

Each stage decides itself whether its folder is up to date, so running the whole pipeline again does
only what changed: nothing, where nothing did.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from popfactory.readiness import require_ready
from popfactory.sources import source_of
from spine.manifest import MANIFEST, Manifest
from spine.progress import SILENT, Progress
from spine.run import Run
from spine.settings import Config

MAX_REFILLS = 20
"""Rounds of fetch, score and select at most; depths at least double, so 20 rounds reach every neighbour."""

Work = Callable[[], Manifest]


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of the pipeline, ready to be called."""

    name: str
    folder: Path
    work: Work


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step came to."""

    name: str
    worked: bool
    """False where the folder was up to date."""
    manifest: Manifest


def run_pipeline(run: Run, *, progress: Progress = SILENT) -> list[Outcome]:
    """Bring every stage up to date, in order, refilling centroids that are short of their quota.

    Returns:
        What each step came to; the last one is the release.

    Raises:
        ConfigError: A setting is wrong, or names what isn't there: before any work.
        DataError: A stage can't work with what it found.
    """
    config = require_ready(run)
    outcomes = [_take(step) for step in _steps_to_neighbours(run, config, progress)]
    outcomes += _fill(run, config, progress)
    outcomes += [_take(step) for step in _steps_to_release(run, progress)]
    return outcomes


def _steps_to_neighbours(run: Run, config: Config, progress: Progress) -> list[Step]:
    from index_builder.centroids import centroids
    from index_builder.embeddings import embed
    from index_builder.indexes import index
    from index_builder.neighbours import retrieve

    def embedding(collection: str) -> Step:
        return Step(
            f"embed {collection}",
            run.collection(collection),
            lambda: embed(run, collection, source_of(run, config, collection), progress=progress),
        )

    steps = [
        embedding("concepts"),
        Step("centroids", run.centroids, lambda: centroids(run, progress=progress)),
    ]
    if not config.pool.index and not config.pool.server:
        steps += [embedding("pool"), Step("index", run.index, lambda: index(run, progress=progress))]
    return [*steps, Step("retrieve", run.neighbours, lambda: retrieve(run, progress=progress))]


def _steps_to_release(run: Run, progress: Progress) -> list[Step]:
    from captioner.captions import caption
    from curation.release import release
    from popfactory.yardsticks import yardsticks_of

    return [
        Step(
            "caption",
            run.captions,
            lambda: caption(run, yardsticks=yardsticks_of(run, progress), progress=progress),
        ),
        Step("release", run.releases, lambda: release(run, progress=progress)),
    ]


def _fill(run: Run, config: Config, progress: Progress) -> list[Outcome]:
    """Fetch, score and select; again and deeper while that can fill a short centroid.

    In two steps, then once more with what was selected in full size: again where some of it could not be had so
    and others took its place.
    """
    from curation.fetch_plan import wanting_full_size
    from curation.fetched_images import fetch
    from curation.refill import deeper
    from curation.selection import require_selected, select
    from index_builder.scores import score

    outcomes: list[Outcome] = []
    depths: list[int] | None = None  # the depths recorded by an earlier start, else the first ones
    full_size: list[int] | None = None  # those recorded by an earlier start, else none
    refills = 0
    while True:
        bringing = partial(fetch, run, depths=depths, full_size=full_size, progress=progress)
        outcomes = _joined(
            outcomes,
            [
                _take(Step("fetch", run.images, bringing)),
                _take(Step("score", run.scores, lambda: score(run, progress=progress))),
                _take(Step("select", run.selection, lambda: select(run, progress=progress))),
            ],
        )
        depths = deeper(run, config, outcomes[0].manifest.parameters["depths"])
        if depths is not None and refills < MAX_REFILLS:
            refills += 1
            progress.say("some centroids are short of their quota: on with their next neighbours")
            continue
        depths, full_size = None, wanting_full_size(run)
        if full_size is None:
            break
        progress.say("on with the full size of what was selected")
    require_selected(run)
    return outcomes


def _joined(before: list[Outcome], after: list[Outcome]) -> list[Outcome]:
    worked = {outcome.name for outcome in before if outcome.worked}
    return [Outcome(new.name, new.worked or new.name in worked, new.manifest) for new in after]


def _take(step: Step) -> Outcome:
    before = _mark(step.folder)
    manifest = step.work()
    return Outcome(step.name, _mark(step.folder) != before, manifest)


def _mark(folder: Path) -> int | None:
    """When it, or the newest release in it, was published."""
    manifests = (folder / MANIFEST, *folder.glob(f"*/{MANIFEST}"))
    return max((path.stat().st_mtime_ns for path in manifests if path.is_file()), default=None)
