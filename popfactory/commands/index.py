"""The index builder's stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popfactory.commands.frame import RUN, report, result_options, stage_command, working
from popfactory.commands.retrieval import retrieve

if TYPE_CHECKING:
    from spine.manifest import Manifest
    from spine.run import Run


@click.command()
@RUN
@click.argument("collection", type=click.Choice(["concepts", "pool"]))
@click.argument("source", required=False)
@click.option("--force", is_flag=True, help="Start over.")
@result_options
def embed(run: Path, collection: str, source: str | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Embed pictures as the concepts or the pool of RUN.

    SOURCE is a folder of pictures, WebDataset tars or Parquet; without it, the one in popfactory.toml. Writes
    RUN/concepts or RUN/pool. A picture that can't be used is counted with its reason.

    \b
    Example:
        popfactory embed runs/pop-1 concepts ~/pictures/taste
    """
    from index_builder.embeddings import embed as embed_stage
    from popfactory.sources import source_of
    from spine.config import load_config

    arguments = ["embed", str(run), collection, *([source] if source else [])]
    with working(run, arguments, quiet) as (opened, progress):
        chosen = source or source_of(opened, load_config(opened.config), collection)
        manifest = embed_stage(opened, collection, chosen, force=force, progress=progress)
    report(manifest, quiet, as_json)


@click.command()
@click.option(
    "--python", default="", help="The interpreter it gets, 3.10 to 3.12; else the one that runs this."
)
def autofaiss(python: str) -> None:
    """Make the environment that autofaiss' builder needs.

    For `[index] builder = "autofaiss"`. It needs packages older than ours, so it gets an environment of its own, in
    popfactory/autofaiss of the user's folder for data (XDG_DATA_HOME). Takes pip and a package index within reach.

    \b
    Example:
        popfactory autofaiss
    """
    from index_builder.indexing.autofaiss import set_up

    click.echo(f"autofaiss is in {set_up(python)}")


@click.command("one-batch")
@click.argument("index_folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
def one_batch(index_folder: Path) -> None:
    """Put an index folder's metadata into one record batch.

    For metadata that came as thousands of record batches, as LAION-5B's: looking rows up takes a quarter of the time.
    Reads INDEX_FOLDER/metadata, writes INDEX_FOLDER/metadata-one-batch, which is read from then on as long as metadata/
    stays as it is. Needs its size on disk twice while it works.

    \b
    Example:
        popfactory one-batch laion5B-index
    """
    from index_builder.indexing.index_file import METADATA_FOLDER
    from index_builder.metadata.one_batch import write_one_batch

    click.echo(f"{write_one_batch(index_folder / METADATA_FOLDER)} is read from now on")


def _centroids(run: "Run", **options: Any) -> "Manifest":
    from index_builder.centroids import centroids

    return centroids(run, **options)


def _index(run: "Run", **options: Any) -> "Manifest":
    from index_builder.indexes import index

    return index(run, **options)


@click.command()
@RUN
@click.option(
    "--pool",
    "whole_pool",
    is_flag=True,
    help="Score all of the pool's embeddings, before anything is fetched.",
)
@click.option("--force", is_flag=True, help="Start over.")
@result_options
def score(run: Path, whole_pool: bool, force: bool, quiet: bool, as_json: bool) -> None:
    """Score the fetched pictures and group near-duplicates.

    Reads RUN/images, writes RUN/scores. --pool reads RUN/pool and writes RUN/pool-scores: retrieve then knows how
    beautiful and how unsafe every neighbour is, as far as [score] names heads on embeddings.

    \b
    Example:
        popfactory score runs/pop-1
    """
    from index_builder.scores import score as score_stage
    from index_builder.scoring.pool_scores import score_pool

    arguments = ["score", str(run), *(["--pool"] if whole_pool else [])]
    with working(run, arguments, quiet) as (opened, progress):
        manifest = (score_pool if whole_pool else score_stage)(opened, force=force, progress=progress)
    report(manifest, quiet, as_json)


centroids = stage_command(
    "centroids", _centroids, "RUN/concepts", "RUN/centroids", "Cluster the embeddings of RUN into centroids."
)
index = stage_command("index", _index, "RUN/pool", "RUN/index", "Build the FAISS index of the pool.")
COMMANDS = (embed, centroids, index, autofaiss, one_batch, retrieve, score)
