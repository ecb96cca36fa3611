"""Release: the dataset with its card, its Croissant metadata and a page of samples."""

from collections import Counter
from typing import Any

from curation.card import CardFacts, card_text, shown_settings
from curation.croissant import croissant
from curation.dataset import Dataset, assemble
from curation.decisions import read_verdicts
from curation.funnel import FunnelStep, funnel
from curation.release_diff import blocked_rows
from curation.revisions import Revision, revisions
from curation.samples import samples_page
from curation.tars import FOLDER as TARS
from curation.tars import write_tars
from curation.verdicts import Verdicts
from spine.config import load_config
from spine.errors import ConfigError, DataError
from spine.lists import BlockLists
from spine.progress import SILENT, Progress
from spine.publish import publish_json, publish_table, publish_text, sha256_of
from spine.run import Run
from spine.stage import Manifest, Stage, find_manifest, read_manifest
from spine.tables import DATASET, read_table

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
    config = load_config(run.config)
    name, version = name or config.release.name, version or config.release.version
    for text in (name, version):
        if text[0] in ".-" or not _PLAIN.issuperset(text):
            raise ConfigError(f"{text!r} can't name a release; letters, digits, - _ and . are taken")
    lists = BlockLists.load(config.lists, run.folder)
    verdicts = read_verdicts(run)
    manifests = {each: read_manifest(run.folder / each) for each in _NEEDED}
    sources = {each: find_manifest(run.collection(each)) for each in ("concepts", "pool")}
    manifests |= {each: manifest for each, manifest in sources.items() if manifest is not None}
    parameters = {
        "name": name,
        "version": version,
        "licence": config.release.licence,
        "pixels": config.release.pixels,
    }
    inputs = {each: manifest.digest for each, manifest in manifests.items()}
    inputs |= {"lists": lists.digest, "decisions": verdicts.caption_digest()}
    earlier = revisions(run, name, version)
    if earlier and not force:
        standing = earlier[-1].manifest
        if (standing.parameters, standing.inputs) == (parameters, inputs):
            return standing
    for line in _outdated(manifests, verdicts):
        progress.say(line)
    dataset = assemble(run, lists, verdicts)
    if not dataset.table.num_rows:
        raise DataError(_nothing(run, dataset))
    if earlier and not force and _stands(earlier[-1], parameters, dataset):
        progress.say(f"the rows are those of {earlier[-1].folder.name}: it stays")
        return earlier[-1].manifest
    number = 0 if not earlier else earlier[-1].number + (0 if force else 1)
    title = f"{version}+{number}" if number else version
    stage = Stage.open("release", run.release(name, title), parameters, inputs, force=True)
    progress.begin("release", dataset.table.num_rows, "rows")
    demo_models = any(manifest.facts.get("demo_models", False) for manifest in manifests.values())
    steps = [*(step for step in funnel(run) if step.label != "released"), _last_step(dataset)]
    facts = CardFacts(
        name=name,
        version=title,
        config=config,
        steps=steps,
        demo_models=demo_models,
        models=_models(manifests),
        lists_digest=lists.digest,
        manifests={each: manifest.digest for each, manifest in manifests.items()},
        selection_facts=manifests["selection"].facts,
    )
    pixels = write_tars(stage.folder, dataset.table, progress) if config.release.pixels else {}
    _publish(stage, dataset, facts)
    progress.advance(0 if pixels else dataset.table.num_rows)
    counts = {"selected": dataset.table.num_rows + sum(dataset.left_out.values())}
    counts |= {"released": dataset.table.num_rows}
    counts |= {f"left_out_{reason}": count for reason, count in dataset.left_out.items()}
    counts |= pixels
    manifest = stage.finish(
        counts,
        {
            "demo_models": demo_models,
            "folder": f"{run.releases.name}/{stage.folder.name}",
            "lists": lists.digest,
            "models": facts.models,
            "settings": shown_settings(config),
        },
    )
    progress.end()
    for line in _still_there(run, lists):
        progress.say(line)
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


def _outdated(manifests: dict[str, Manifest], verdicts: Verdicts) -> list[str]:
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


def _last_step(dataset: Dataset) -> FunnelStep:
    return FunnelStep("released", dataset.table.num_rows, dataset.left_out)


def _models(manifests: dict[str, Manifest]) -> dict[str, str]:
    """Who embedded, scored and described."""
    scores, captions = manifests["scores"].facts, manifests["captions"].facts
    found = {
        "embeddings": manifests["centroids"].facts.get("model"),
        **{kind: scores.get(kind) for kind in ("aesthetic", "unsafe", "watermark")},
        "captions": captions.get("model"),
        "prompt": captions.get("prompt_id"),
    }
    return {kind: str(model) for kind, model in found.items() if model}


def _nothing(run: Run, dataset: Dataset) -> str:
    steps = [*(step for step in funnel(run) if step.label != "released"), _last_step(dataset)]
    return f"{run.folder}: no row to release. {'; '.join(step.line() for step in steps)}"
