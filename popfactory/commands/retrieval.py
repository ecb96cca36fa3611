"""The command that asks a pool for neighbours: of a run's centroids, or of anyone's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from popfactory.commands.frame import report, result_options, working

if TYPE_CHECKING:
    from index_builder.retrieval.pools import Question

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--centroids", type=_FILE, help="Centroids of one's own: .npy, or Parquet with a column embedding."
)
@click.option("--index", type=click.Path(path_type=Path, file_okay=False), help="Index folder to search.")
@click.option("--server", default="", metavar="URL", help="Address of a server to search.")
@click.option("--indice-name", default="", help="Which of the server's indices; its first without it.")
@click.option(
    "--out", metavar="FOLDER", type=click.Path(path_type=Path), help="Folder to write to: new or empty."
)
@click.option("--k", default=1000, show_default=True, help="Neighbours a centroid.")
@click.option("--nprobe", default=0, help="Lists searched a centroid; the index's own number without it.")
@click.option("--columns", default="", metavar="NAME,...", help="Metadata to write beside the id.")
@click.option("--min-side-px", default=0, type=click.IntRange(0), help="Shorter side at least.")
@click.option("--aesthetic-min", type=float, help="Aesthetic score at least.")
@click.option("--pwatermark-max", type=click.FloatRange(0, 1), help="Watermark probability at most.")
@click.option("--punsafe-max", type=click.FloatRange(0, 1), help="NSFW probability at most.")
@click.option("--language", "languages", multiple=True, help="Language of the caption; may be given again.")
@click.option("--alt-txt-similarity-min", type=float, help="Similarity of picture and caption at least.")
@click.option("--similarity-min", type=float, help="Similarity to the centroid at least.")
@click.option(
    "--rating-vectors",
    default="",
    metavar="FOLDER",
    help="Folder with rating0.npy to rating9.npy, for --aesthetic-weight.",
)
@click.option(
    "--aesthetic-rating",
    default=9,
    show_default=True,
    type=click.IntRange(0, 9),
    help="Which rating they are pulled towards, by --aesthetic-weight.",
)
@click.option(
    "--aesthetic-weight", default=0.0, help="Pull centroids towards a rating's vector; LAION-POP's was 0.5."
)
@click.option("--allow", type=_FILE, help="Ids that may be found, and no others: .npy, or one a line.")
@click.option("--deny", type=_FILE, help="Ids that may not be found.")
@click.option(
    "--unknown",
    default="drop",
    show_default=True,
    type=click.Choice(["keep", "drop"]),
    help="What becomes of a picture whose value isn't known.",
)
@click.option(
    "--explain", is_flag=True, help="Say how it would be searched and what that costs; search nothing."
)
@click.option("--force", is_flag=True, help="Start over.")
@result_options
def retrieve(run: Path | None, explain: bool, force: bool, quiet: bool, as_json: bool, **asked: Any) -> None:
    """Find every centroid's neighbours in the pool.

    Reads RUN/centroids and the index, writes RUN/neighbours, as RUN's settings say.

    With --centroids it needs no run: it asks an index folder or a server for the neighbours of any vectors, and
    writes Parquet parts with centroid_id, rank, id, similarity and --columns to --out. Stopped, the same command
    goes on.

    \b
    Example:
        popfactory retrieve runs/pop-1
        popfactory retrieve --centroids c.npy --index laion/ --k 1000 --out found/ --columns url --min-side-px 768
    """
    if (run is None) == (asked["centroids"] is None):
        raise click.UsageError("either RUN or --centroids was needed")
    if run is not None:
        _retrieve_run(run, asked, explain=explain, force=force, quiet=quiet, as_json=as_json)
        return
    if (asked["index"] is None) == (not asked["server"]):
        raise click.UsageError("--centroids needs --index FOLDER or --server URL, one of them")
    if asked["out"] is None and not explain:
        raise click.UsageError("--centroids needs --out FOLDER")
    from index_builder.centroid_query import explain_centroids, retrieve_centroids
    from popfactory.terminal import TerminalProgress

    if asked["aesthetic_weight"] and not asked["rating_vectors"]:
        raise click.UsageError("--aesthetic-weight needs --rating-vectors FOLDER")
    question = _question(asked)
    source = {name: asked[name] for name in ("index", "server", "indice_name")}
    if explain:
        click.echo(explain_centroids(asked["centroids"], question, **source))
        return
    terminal = TerminalProgress(quiet=quiet)
    try:
        manifest = retrieve_centroids(
            asked["centroids"],
            asked["out"],
            question,
            **source,
            **_pull(asked),
            force=force,
            progress=terminal,
        )
    finally:
        terminal.close()
    report(manifest, quiet, as_json)


def _retrieve_run(
    run: Path, asked: dict[str, Any], *, explain: bool, force: bool, quiet: bool, as_json: bool
) -> None:
    from index_builder.neighbours import explain_retrieve
    from index_builder.neighbours import retrieve as retrieve_stage
    from spine.run import Run

    context = click.get_current_context()
    for name in asked:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            option = next(each for each in context.command.params if each.name == name)
            raise click.UsageError(f"{option.opts[0]} goes with --centroids; a run has its settings")
    if explain:
        click.echo(explain_retrieve(Run(run).require()))
        return
    with working(run, ["retrieve", str(run)], quiet) as (opened, progress):
        manifest = retrieve_stage(opened, force=force, progress=progress)
    report(manifest, quiet, as_json)


def _pull(asked: dict[str, Any]) -> dict[str, Any]:
    from spine.settings import AestheticQuery

    if not asked["aesthetic_weight"]:
        return {}
    query = AestheticQuery(rating=asked["aesthetic_rating"], weight=asked["aesthetic_weight"])
    return {"aesthetic_query": query, "rating_vectors": asked["rating_vectors"]}


def _question(asked: dict[str, Any]) -> "Question":
    from index_builder.metadata.predicates import Predicate, read_ids
    from index_builder.retrieval.pools import Question
    from spine.settings import AestheticMin, FiltersConfig

    filters = FiltersConfig(
        min_side_px=asked["min_side_px"],
        pwatermark_max=asked["pwatermark_max"],
        punsafe_max=asked["punsafe_max"],
        aesthetic_min=AestheticMin(value=asked["aesthetic_min"]),
        unknown=asked["unknown"],
    )
    predicate = Predicate(
        filters=filters,
        languages=asked["languages"],
        alt_txt_similarity_min=asked["alt_txt_similarity_min"],
        allow=None if asked["allow"] is None else read_ids(asked["allow"]),
        **({} if asked["deny"] is None else {"deny": read_ids(asked["deny"])}),
    )
    return Question(
        k=asked["k"],
        nprobe=asked["nprobe"],
        predicate=predicate,
        similarity_min=asked["similarity_min"],
        columns=tuple(name.strip() for name in asked["columns"].split(",") if name.strip()),
    )
