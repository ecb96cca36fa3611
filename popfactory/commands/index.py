"""The index builder's stages."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popfactory.commands.frame import RUN, report, result_options, stage_command, working
from popfactory.commands.retrieval import retrieve

if TYPE_CHECKING:
    from spine.run import Run
    from spine.stage import Manifest


@click.command()
@RUN
@click.argument("collection", type=click.Choice(["concepts", "pool"]))
@click.argument("source", required=False)
@click.option("--force", is_flag=True, help="Start over.")
@result_options
def embed(run: Path, collection: str, source: str | None, force: bool, quiet: bool, as_json: bool) -> None:
    """Embed the pictures of SOURCE as the concepts or the pool of RUN.

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
    """Make the environment that `[index] builder = "autofaiss"` needs.

    autofaiss needs packages older than ours, so it gets an environment of its own, in popfactory/autofaiss of the
    user's folder for data (XDG_DATA_HOME). Takes pip, and a package index that it can reach.

    \b
    Example:
        popfactory autofaiss
    """
    from index_builder.autofaiss import set_up

    click.echo(f"autofaiss is in {set_up(python)}")


def _centroids(run: "Run", **options: Any) -> "Manifest":
    from index_builder.centroids import centroids

    return centroids(run, **options)


def _index(run: "Run", **options: Any) -> "Manifest":
    from index_builder.indexes import index

    return index(run, **options)


def _score(run: "Run", **options: Any) -> "Manifest":
    from index_builder.scores import score

    return score(run, **options)


centroids = stage_command(
    "centroids", _centroids, "RUN/concepts", "RUN/centroids", "Cluster the embeddings of RUN into centroids."
)
index = stage_command("index", _index, "RUN/pool", "RUN/index", "Build the FAISS index of the pool.")
score = stage_command(
    "score", _score, "RUN/images", "RUN/scores", "Score the fetched pictures and group near-duplicates."
)

COMMANDS = (embed, centroids, index, autofaiss, retrieve, score)
