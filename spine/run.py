"""The run folder: the only state of a factory, and every path in it.

RUN/
    popfactory.toml          every setting
    prompts.toml             caption prompts of this run's own, where it has any
    concepts/, pool/         img_emb/img_emb_00000.npy, metadata/metadata_00000.parquet, statuses/part-00000.parquet
    index/                   a clip-retrieval index folder: image.index, metadata/0.arrow
    centroids/centroids.parquet
    neighbours/part-00000.parquet
    images/                  part-00000.parquet, asked.parquet, depths.json, full-size.parquet, originals/ab/abcd….jpg
    scores/                  part-00000.parquet, groups.parquet, exemplars.parquet, pool-similarities.parquet
    pool-scores/             part-00000.parquet: scores of the whole pool, where asked for
    links/                   part-*.parquet: what the addresses of downloads gave when asked again
    decisions.sqlite         curators' events, saved views
    reveals.jsonl            who looked at which blurred picture
    added/                   concept-00000.json: concepts that curators added
    selection/selection.parquet
    captions/                part-00000.parquet, agreement.parquet, blank.json, report.html,
                             others/CAPTIONER/part-00000.parquet, takes/part-00000.parquet
    previews/NAME/           a few pictures by several captioners: part-00000.parquet, page.html; no stage reads it
    jobs/                    a journal per job
    drawings/                the demo's own pictures, in a demo run only
    thumbnails/              small pictures the board has made, tables/ as it maps them: a cache, safe to delete
    release/NAME-VERSION/    dataset.parquet, README.md, samples.html, manifest.json

A stage's folder counts once its manifest.json is there; see `spine.stage`.
"""

from dataclasses import dataclass
from pathlib import Path

from spine.errors import DataError

COLLECTIONS = ("concepts", "pool")
"""The two sets of pictures that are embedded: the taste, and what is searched."""

STAGES = (
    "concepts",
    "pool",
    "centroids",
    "index",
    "neighbours",
    "images",
    "scores",
    "selection",
    "captions",
    "release",
)
"""The folders stages write, in the order of the data."""

SIDE_FOLDERS = ("pool-scores", "links")
"""What is written beside them, where it is asked for."""

_WRITTEN_BY = {
    "concepts": "embed {run} concepts",
    "pool": "embed {run} pool",
    "centroids": "centroids {run}",
    "index": "index {run}",
    "neighbours": "retrieve {run}",
    "images": "fetch {run}",
    "scores": "score {run}",
    "selection": "select {run}",
    "captions": "caption {run}",
    "release": "release {run}",
    "pool-scores": "score {run} --pool",
    "links": "links {run}",
}
_CONFIG = "popfactory.toml"


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder. Holds no state of its own: two of the same path are the same run."""

    folder: Path

    @property
    def config(self) -> Path:
        """popfactory.toml."""
        return self.folder / _CONFIG

    @property
    def prompts(self) -> Path:
        """prompts.toml, where the run has caption prompts of its own."""
        return self.folder / "prompts.toml"

    @property
    def concepts(self) -> Path:
        """Embeddings of the pictures that set the taste."""
        return self.folder / "concepts"

    @property
    def pool(self) -> Path:
        """Embeddings of the pictures that are searched."""
        return self.folder / "pool"

    def collection(self, name: str) -> Path:
        """The folder of "concepts" or "pool"."""
        if name not in COLLECTIONS:
            raise DataError(f"{name!r} is no collection; there are: {', '.join(COLLECTIONS)}")
        return self.folder / name

    @property
    def index(self) -> Path:
        """The index folder built from the pool."""
        return self.folder / "index"

    @property
    def centroids(self) -> Path:
        """The stage folder of the centroids."""
        return self.folder / "centroids"

    @property
    def centroids_table(self) -> Path:
        """One row a centroid; schema `spine.tables.centroids_schema`."""
        return self.centroids / "centroids.parquet"

    @property
    def added(self) -> Path:
        """Concepts that curators added, a file each; see `spine.added_centroids`."""
        return self.folder / "added"

    def added_concept(self, number: int) -> Path:
        """The concept that was added with this number."""
        return self.added / f"concept-{number:05d}.json"

    @property
    def neighbours(self) -> Path:
        """Parts of `spine.tables.NEIGHBOURS`, sorted by centroid and rank."""
        return self.folder / "neighbours"

    @property
    def images(self) -> Path:
        """Parts of `spine.tables.IMAGES`, and the stored pictures."""
        return self.folder / "images"

    @property
    def depths(self) -> Path:
        """How deep fetch is going: JSON, written before it starts."""
        return self.images / "depths.json"

    @property
    def full_size(self) -> Path:
        """Which pictures fetch is to have in full size; schema `spine.tables.FULL_SIZE`."""
        return self.images / "full-size.parquet"

    @property
    def found_table(self) -> Path:
        """What searches found and people keep, as fetch went by it; schema `spine.tables.NEIGHBOURS`."""
        return self.images / "found.parquet"

    @property
    def asked_table(self) -> Path:
        """When addresses were asked; schema `spine.tables.ASKED`."""
        return self.images / "asked.parquet"

    @property
    def asked_parts(self) -> Path:
        """Parts of the same, while fetch is at work."""
        return self.images / "asked"

    @property
    def originals(self) -> Path:
        """Pictures that came over the web, by content hash."""
        return self.images / "originals"

    def original(self, sha256: str, suffix: str) -> Path:
        """Where the picture with this hash is stored; suffix such as ".jpg"."""
        return self.originals / sha256[:2] / f"{sha256}{suffix}"

    @property
    def links(self) -> Path:
        """Parts of `spine.tables.LINKS`: what the addresses of downloads gave when they were asked again."""
        return self.folder / "links"

    @property
    def scores(self) -> Path:
        """Parts of `spine.tables.scores_schema`, and the near-duplicate groups."""
        return self.folder / "scores"

    @property
    def pool_scores(self) -> Path:
        """Scores of the whole pool by hash, where they were asked for: a side table of its own."""
        return self.folder / "pool-scores"

    @property
    def groups_table(self) -> Path:
        """One row a fetched picture; schema `spine.tables.GROUPS`."""
        return self.scores / "groups.parquet"

    @property
    def pool_similarities_table(self) -> Path:
        """How like pictures are to what the pool was made from; schema `spine.tables.POOL_SIMILARITIES`."""
        return self.scores / "pool-similarities.parquet"

    @property
    def exemplars_table(self) -> Path:
        """How unsafe the centroids' exemplars are; schema `spine.tables.EXEMPLARS`."""
        return self.scores / "exemplars.parquet"

    @property
    def decisions(self) -> Path:
        """The curators' events, SQLite."""
        return self.folder / "decisions.sqlite"

    @property
    def selection(self) -> Path:
        """The stage folder of the selection."""
        return self.folder / "selection"

    @property
    def selection_table(self) -> Path:
        """One row a candidate; schema `spine.tables.SELECTION`."""
        return self.selection / "selection.parquet"

    @property
    def captions(self) -> Path:
        """Parts of `spine.tables.CAPTIONS`, of the captioner that is asked now."""
        return self.folder / "captions"

    @property
    def other_captions(self) -> Path:
        """A folder for each captioner that was asked before, with its parts of `spine.tables.CAPTIONS`."""
        return self.captions / "others"

    @property
    def caption_takes(self) -> Path:
        """Parts of `spine.tables.CAPTIONS`: further captions of chosen pictures, by whichever captioner."""
        return self.captions / "takes"

    @property
    def caption_agreement(self) -> Path:
        """How well captions agree with their pictures; schema `spine.tables.AGREEMENT`."""
        return self.captions / "agreement.parquet"

    @property
    def blank_captions(self) -> Path:
        """What each captioner says of a picture that shows nothing: JSON."""
        return self.captions / "blank.json"

    @property
    def captions_report(self) -> Path:
        """What the captions are like: a page that loads nothing."""
        return self.captions / "report.html"

    @property
    def caption_previews(self) -> Path:
        """A folder for each preview of captions: a part of `spine.tables.CAPTIONS` a captioner, page.html, manifest."""
        return self.folder / "previews"

    @property
    def jobs(self) -> Path:
        """A journal and a log per job."""
        return self.folder / "jobs"

    @property
    def drawings(self) -> Path:
        """Pictures the demo draws: the sources of its collections."""
        return self.folder / "drawings"

    @property
    def reveals(self) -> Path:
        """Which blurred pictures were looked at clear, and by whom: a JSON object a line, only appended to."""
        return self.folder / "reveals.jsonl"

    @property
    def thumbnails(self) -> Path:
        """Small pictures the board has made; a cache, safe to delete."""
        return self.folder / "thumbnails"

    @property
    def previews(self) -> Path:
        """Thumbnails of pictures shown before they are fetched, SQLite; a cache, safe to delete."""
        return self.thumbnails / "previews.sqlite"

    @property
    def mapped_tables(self) -> Path:
        """Tables of the stages as the board maps them into memory; a cache, safe to delete."""
        return self.thumbnails / "tables"

    @property
    def releases(self) -> Path:
        """One folder a release."""
        return self.folder / "release"

    def release(self, name: str, version: str) -> Path:
        """The folder of one release."""
        return self.releases / f"{name}-{version}"

    def require(self) -> "Run":
        """This run, if its folder holds a popfactory.toml.

        Raises:
            DataError: There is none.
        """
        if not self.config.is_file():
            raise DataError(
                f"{self.folder}: no popfactory.toml here; make one with `popfactory init {self.folder}`"
            )
        return self


def written_by(path: Path) -> str:
    """The command that writes a stage's folder, or a file in it, as advice: "run `popfactory select RUN`, or ..."."""
    for place in (path, *path.parents):
        if place.name in _WRITTEN_BY and (place.parent / _CONFIG).is_file():
            command = _WRITTEN_BY[place.name].format(run=place.parent)
            return f"run `popfactory {command}`, or all stages with `popfactory run {place.parent}`"
    return "run the stage that writes it"


def part_path(folder: Path, number: int) -> Path:
    """The path of a table's part: part-00000.parquet and on."""
    return folder / f"part-{number:05d}.parquet"


def part_paths(folder: Path) -> list[Path]:
    """A table's parts in order; empty where there are none."""
    return sorted(folder.glob("part-*.parquet"))
