"""The funnel: how many pictures each stage passed on, and where the others were lost. From manifests alone."""

from collections.abc import Callable
from dataclasses import dataclass, field

from curation.revisions import newest
from spine.config import load_config
from spine.manifest import Manifest, find_manifest
from spine.run import Run


@dataclass(frozen=True, slots=True)
class FunnelStep:
    """One line of the funnel."""

    label: str
    """What is counted, for a person."""
    count: int
    losses: dict[str, int] = field(default_factory=dict)
    """Those that went in and did not come out, by reason."""

    def line(self) -> str:
        """For a message: fetched 90 (gone 8, timeout 2 lost)."""
        lost = ", ".join(f"{reason} {count:,}" for reason, count in self.losses.items())
        return f"{self.label} {self.count:,}" + (f" ({lost} lost)" if lost else "")


def funnel(run: Run) -> list[FunnelStep]:
    """The steps of a run so far; stages that aren't finished have none.

    Raises:
        ConfigError: popfactory.toml is missing or wrong.
        DataError: A manifest is damaged.
    """
    config = load_config(run.config)
    release = newest(run, config.release.name, config.release.version)
    steps: list[FunnelStep] = []
    for folder, lines in (
        (run.concepts, _collection("concept")),
        (run.centroids, _centroids),
        (run.pool, _collection("pool")),
        (run.neighbours, _neighbours),
        (run.images, _images),
        (run.scores, _scores),
        (run.selection, _selection),
        (run.captions, _captions),
        (release, _release),
    ):
        manifest = find_manifest(folder)
        if manifest is not None:
            steps += lines(manifest)
    return steps


def _losses(manifest: Manifest, prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(prefix): count
        for name, count in manifest.counts.items()
        if name.startswith(prefix) and count
    }


def _collection(name: str) -> Callable[[Manifest], list[FunnelStep]]:
    def steps(manifest: Manifest) -> list[FunnelStep]:
        duplicates = manifest.counts.get("duplicate", 0)
        lost = ({"duplicate": duplicates} if duplicates else {}) | _losses(manifest, "failed_")
        return [
            FunnelStep(f"{name} images in", manifest.counts.get("inputs", 0)),
            FunnelStep(f"{name} images embedded", manifest.counts.get("embedded", 0), lost),
        ]

    return steps


def _centroids(manifest: Manifest) -> list[FunnelStep]:
    return [FunnelStep("centroids", manifest.counts.get("centroids", 0))]


def _neighbours(manifest: Manifest) -> list[FunnelStep]:
    counts = manifest.counts
    steps = [FunnelStep("neighbours", counts.get("neighbours", 0))]
    if "pictures" in counts:
        steps.append(FunnelStep("pictures among them", counts["pictures"]))
    return steps


def _images(manifest: Manifest) -> list[FunnelStep]:
    counts = manifest.counts
    return [
        FunnelStep("pictures within fetch's depth", counts.get("candidates", 0)),
        FunnelStep(
            "fetched",
            counts.get("fetched", 0),
            _losses(manifest, "rejected_") | _losses(manifest, "failed_"),
        ),
    ]


def _scores(manifest: Manifest) -> list[FunnelStep]:
    lost = _losses(manifest, "failed_")
    return [FunnelStep("scored", manifest.counts.get("scored", 0), lost)]


def _selection(manifest: Manifest) -> list[FunnelStep]:
    # A picture that two centroids want is two candidates: rules are counted by candidate.
    return [
        FunnelStep("candidates (a centroid and a picture)", manifest.counts.get("candidates", 0)),
        FunnelStep("selected", manifest.counts.get("selected", 0), _losses(manifest, "rejected_")),
    ]


def _captions(manifest: Manifest) -> list[FunnelStep]:
    return [FunnelStep("captioned", manifest.counts.get("captioned", 0), _losses(manifest, "failed_"))]


def _release(manifest: Manifest) -> list[FunnelStep]:
    return [FunnelStep("released", manifest.counts.get("released", 0), _losses(manifest, "left_out_"))]
