"""Release: the dataset with its card, its Croissant metadata and a page of samples."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curation.candidates import column
from curation.card import CardFacts, card_text, shown_settings
from curation.croissant import croissant
from curation.dataset import Dataset, assemble
from curation.decisions import read_verdicts
from curation.fiftyone import fiftyone_csv
from curation.funnel import FunnelStep, funnel
from curation.release_diff import Difference, blocked_rows, difference_to
from curation.resemblance_report import resemblance_report
from curation.revisions import Revision, last_published, revisions
from curation.samples import samples_page
from curation.tars import FOLDER as TARS
from curation.tars import write_tars
from curation.verdicts import Verdicts
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.lists import BlockLists
from spine.manifest import Manifest, find_manifest, read_manifest
from spine.progress import SILENT, Progress
from spine.prompts import prompt_by_id
from spine.publish import publish_json, publish_table, publish_text, sha256_of
from spine.run import Run
from spine.settings import Config
from spine.stage import Stage
from spine.table_files import read_table
from spine.tables import DATASET

_NEEDED = ("centroids", "neighbours", "images", "scores", "selection", "captions")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def release(
    run: Run,
    *,
    name: str | None = None,
    version: str | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Publish the selected and captioned pictures' rows as release/NAME-VERSION/.

    What is published stays as it is. Where rows, licence or pixels would differ, the version's next revision
    is published beside it: release/NAME-VERSION+1/ and on (`curation.revisions`).

    Args:
        run: With every stage before it finished.
        name: Instead of [release] name.
        version: Instead of [release] version.
        force: Make the newest revision anew, in its place.
        progress: Told of rows written.

    Raises:
        DataError: A stage isn't finished, or no row has both a place in the selection and a caption.
        ConfigError: A setting is wrong, or a list can't be read.
    """
    while True:
        plan = _Plan.of(run, name, version)
        manifest, is_new = _released(plan, force, progress)
        # A picture taken down while all this was written must not stay in it.
        if BlockLists.load(load_config(run.config).lists, run.folder).digest == plan.lists.digest:
            break
        progress.say("a list changed meanwhile: the release is made again")
        force = is_new  # in its place; one that stood before stays
    for line in _still_there(run, plan.lists):
        progress.say(line)
    return manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What would be published now."""

    name: str
    """Of its folder."""
    stands: bool
    """Whether the newest revision is this very release already: nothing would be published."""
    dataset: Dataset
    outdated: list[str]
    """What changed since the stages before ran."""
    difference: Difference | None
    """From the newest revision, else from the release that was published last; None where there is none."""
    card: str


def draft(run: Run) -> Draft:
    """What `release` would publish as things stand; writes nothing.

    Raises:
        DataError: A stage isn't finished, or no row has both a place in the selection and a caption.
        ConfigError: A setting is wrong, or a list can't be read.
    """
    plan = _Plan.of(run, None, None)
    dataset = _filled(plan)
    earlier = revisions(run, plan.name, plan.version)
    title = plan.title(earlier[-1].number + 1 if earlier else 0)
    name = run.release(plan.name, title).name
    before = earlier[-1].folder if earlier else last_published(run)
    return Draft(
        name=name,
        stands=bool(earlier) and _stands(earlier[-1], plan.parameters, dataset),
        dataset=dataset,
        outdated=outdated(plan.manifests, plan.verdicts),
        difference=None if before is None else difference_to(run, before, name, dataset.table),
        card=card_text(dataset.table, plan.card_facts(title, dataset)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """What is to be released, from what."""

    run: Run
    config: Config
    name: str
    version: str
    lists: BlockLists
    verdicts: Verdicts
    manifests: dict[str, Manifest]
    """Of the stages before, by name."""

    @classmethod
    def of(cls, run: Run, name: str | None, version: str | None) -> "_Plan":
        """As things stand now."""
        config = load_config(run.config)
        name, version = name or config.release.name, version or config.release.version
        for text in (name, version):
            if text[0] in ".-" or not _PLAIN.issuperset(text):
                raise ConfigError(f"{text!r} can't name a release; letters, digits, - _ and . are taken")
        manifests = {each: read_manifest(run.folder / each) for each in _NEEDED}
        sources = {each: find_manifest(run.collection(each)) for each in ("concepts", "pool")}
        return cls(
            run=run,
            config=config,
            name=name,
            version=version,
            lists=BlockLists.load(config.lists, run.folder),
            verdicts=read_verdicts(run),
            manifests=manifests | {each: found for each, found in sources.items() if found is not None},
        )

    def title(self, number: int) -> str:
        """Its version with the number of the revision."""
        return f"{self.version}+{number}" if number else self.version

    @property
    def parameters(self) -> dict[str, Any]:
        """What of the settings shapes it, beside its inputs."""
        settings = self.config.release
        return {
            "name": self.name,
            "version": self.version,
            "licence": settings.licence,
            "pixels": settings.pixels,
            **({"aspect_buckets": True} if settings.pixels and settings.aspect_buckets else {}),
        }

    @property
    def inputs(self) -> dict[str, str]:
        """Digests of what it is made from."""
        return {each: manifest.digest for each, manifest in self.manifests.items()} | {
            "lists": self.lists.digest,
            "decisions": self.verdicts.caption_digest(),
        }

    @property
    def demo_models(self) -> bool:
        """Whether any stage used one."""
        return any(manifest.facts.get("demo_models", False) for manifest in self.manifests.values())

    def pixels(self, stage: Stage, dataset: Dataset, progress: Progress) -> dict[str, int]:
        """Write the tars, where they are asked for; what to count of them."""
        settings = self.config.release
        if not settings.pixels:
            return {}
        return write_tars(stage.folder, dataset.table, progress, aspect_buckets=settings.aspect_buckets)

    def card_facts(self, title: str, dataset: Dataset) -> CardFacts:
        """What its card tells."""
        steps = [step for step in funnel(self.run) if step.label != "released"]
        return CardFacts(
            name=self.name,
            version=title,
            config=self.config,
            steps=[*steps, _last_step(dataset)],
            demo_models=self.demo_models,
            models=_models(self.manifests),
            prompt_text=_prompt_text(self.manifests["captions"].facts, self.config),
            lists_digest=self.lists.digest,
            manifests={each: manifest.digest for each, manifest in self.manifests.items()},
            selection_facts=self.manifests["selection"].facts,
        )


def _released(plan: _Plan, force: bool, progress: Progress) -> tuple[Manifest, bool]:
    """The release of this plan, and whether it was written now or stood before."""
    earlier = revisions(plan.run, plan.name, plan.version)
    newest = earlier[-1] if earlier and not force else None
    if newest and (newest.manifest.parameters, newest.manifest.inputs) == (plan.parameters, plan.inputs):
        return newest.manifest, False
    for line in outdated(plan.manifests, plan.verdicts):
        progress.say(line)
    dataset = _filled(plan)
    if newest and _stands(newest, plan.parameters, dataset):
        progress.say(f"the rows are those of {newest.folder.name}: it stays")
        return newest.manifest, False
    number = 0 if not earlier else earlier[-1].number + (0 if force else 1)
    return _published(plan, dataset, plan.title(number), progress), True


def _filled(plan: _Plan) -> Dataset:
    """Its rows, of which there is one at least."""
    dataset = assemble(plan.run, plan.lists, plan.verdicts)
    if not dataset.table.num_rows:
        raise DataError(_nothing(plan.run, dataset))
    return dataset


def _published(plan: _Plan, dataset: Dataset, title: str, progress: Progress) -> Manifest:
    """Write a release's folder."""
    run = plan.run
    stage = Stage.open("release", run.release(plan.name, title), plan.parameters, plan.inputs, force=True)
    progress.begin("release", dataset.table.num_rows, "rows")
    facts = plan.card_facts(title, dataset)
    pixels = plan.pixels(stage, dataset, progress)
    _publish(stage, dataset, facts)
    _publish_report(stage, plan, dataset, facts)
    progress.advance(0 if pixels else dataset.table.num_rows)
    counts = {
        "selected": dataset.table.num_rows + sum(dataset.left_out.values()),
        "released": dataset.table.num_rows,
        **{f"left_out_{reason}": count for reason, count in dataset.left_out.items()},
        **pixels,
    }
    manifest = stage.finish(
        counts,
        {
            "demo_models": plan.demo_models,
            "folder": f"{run.releases.name}/{stage.folder.name}",
            "lists": plan.lists.digest,
            "models": facts.models,
            "settings": shown_settings(plan.config),
        },
    )
    progress.end()
    return manifest


def _stands(earlier: Revision, parameters: dict[str, Any], dataset: Dataset) -> bool:
    """Whether what is published has these very rows: then nothing is to be published anew."""
    if earlier.manifest.parameters != parameters:
        return False
    return bool(read_table(earlier.folder / "dataset.parquet", DATASET).equals(dataset.table))


def _still_there(run: Run, lists: BlockLists) -> list[str]:
    """The releases that hold what a list names by now."""
    held = Counter(row.release for row in blocked_rows(run, lists))
    return [
        f"{run.releases / release}: {count:,} of its rows are on a list by now; delete it, "
        f"`popfactory release {run.folder} --check` names them"
        for release, count in sorted(held.items())
    ]


def outdated(manifests: dict[str, Manifest], verdicts: Verdicts) -> list[str]:
    """What changed since an earlier stage ran, for who runs this stage by itself."""
    lines = []
    if manifests["selection"].inputs.get("decisions") != verdicts.selection_digest():
        lines.append(
            "curators have decided since the selection was made; `popfactory run` brings all up to date"
        )
    if manifests["captions"].inputs.get("selection") != manifests["selection"].digest:
        lines.append("the captions are of an earlier selection; `popfactory run` brings all up to date")
    return lines


def _publish(stage: Stage, dataset: Dataset, facts: CardFacts) -> None:
    parquet = stage.folder / "dataset.parquet"
    tars = sorted((stage.folder / TARS).glob("*.tar"))
    publish_table(parquet, dataset.table)
    publish_text(stage.folder / "fiftyone.csv", fiftyone_csv(dataset.table))
    publish_text(stage.folder / "samples.html", samples_page(dataset.table, facts.title, facts.demo_models))
    publish_json(
        stage.folder / "croissant.json",
        croissant(
            name=facts.name,
            version=facts.version,
            licence=facts.config.release.licence,
            description=facts.description,
            parquet_sha256=sha256_of(parquet),
            parquet_bytes=parquet.stat().st_size,
            tars=[(path.name, sha256_of(path), path.stat().st_size) for path in tars],
        ),
    )
    publish_text(stage.folder / "README.md", card_text(dataset.table, facts))


def _publish_report(stage: Stage, plan: _Plan, dataset: Dataset, facts: CardFacts) -> None:
    report = resemblance_report(
        plan.run,
        column(dataset.table, "id"),
        plan.config,
        plan.verdicts,
        title=facts.title,
        demo_models=facts.demo_models,
    )
    publish_json(stage.folder / "report.json", report.content)
    publish_text(stage.folder / "report.html", report.page)


def _last_step(dataset: Dataset) -> FunnelStep:
    return FunnelStep("released", dataset.table.num_rows, dataset.left_out)


def _prompt_text(facts: Mapping[str, Any], config: Config) -> str:
    """What the captioner was asked; a run from before its manifest said so had one of popfactory's own prompts."""
    return str(facts.get("prompt_text") or prompt_by_id(facts.get("prompt_id", config.caption.prompt)).text)


def _models(manifests: dict[str, Manifest]) -> dict[str, str]:
    """Who embedded, scored and described."""
    scores, captions = manifests["scores"].facts, manifests["captions"].facts
    found = {
        "embeddings": manifests["centroids"].facts.get("model"),
        **{kind: scores.get(kind) for kind in ("aesthetic", "unsafe", "watermark", "violence")},
        "captions": captions.get("model"),
        "prompt": captions.get("prompt_id"),
    }
    return {kind: str(model) for kind, model in found.items() if model}


def _nothing(run: Run, dataset: Dataset) -> str:
    steps = [*(step for step in funnel(run) if step.label != "released"), _last_step(dataset)]
    return f"{run.folder}: no row to release. {'; '.join(step.line() for step in steps)}"
