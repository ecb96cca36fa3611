"""The captioner's stage, and its small server."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from popfactory.commands.frame import RUN, report, result_options, working

if TYPE_CHECKING:
    from spine.run import Run


@click.command()
@RUN
@click.option(
    "--failed-only", is_flag=True, help="Ask again for the pictures that failed, and for no others."
)
@click.option("--limit", type=click.IntRange(1), help="So many pictures at most, then stop.")
@click.option(
    "--kept-in",
    type=click.IntRange(0),
    metavar="CENTROID",
    help="Of the selected pictures those alone that people keep in this centroid.",
)
@click.option(
    "--only", type=int, multiple=True, metavar="ID", help="Ask again for this picture; what is there stays."
)
@click.option(
    "--only-from",
    type=click.File(errors="replace"),
    metavar="FILE",
    help="As --only, for the ids in FILE, one a line.",
)
@click.option(
    "--preview", type=click.IntRange(1), metavar="N", help="Show N pictures side by side; no captions change."
)
@click.option(
    "--prompt", multiple=True, metavar="ID", help="Another prompt, with --only; several, with --preview."
)
@click.option(
    "--model", multiple=True, metavar="NAME", help="Another model, with --only; several, with --preview."
)
@click.option("--dry-run", is_flag=True, help="Say what would be asked and how long it takes; ask nothing.")
@click.option("--force", is_flag=True, help="Throw this captioner's captions away and start over.")
@result_options
def caption(run: Path, dry_run: bool, quiet: bool, as_json: bool, **given: Any) -> None:
    """Describe the selected pictures.

    Reads RUN/selection and RUN/images, writes RUN/captions. What is there is not asked again; captions of another
    model, prompt or parameters are kept beside. How long it takes is told from this captioner's earlier jobs.

    --preview describes a few pictures with each --prompt and --model and writes RUN/previews/NAME/page.html. --only
    asks again for single pictures; both captions are kept, and a curator chooses. --kept-in describes what people keep
    in one centroid and leaves the rest for later.

    \b
    Example:
        popfactory caption runs/pop-1 --dry-run
        popfactory caption runs/pop-1 --kept-in 42
        popfactory caption runs/pop-1 --preview 8 --prompt laion-pop --prompt detail
        popfactory caption runs/pop-1 --only -1234567890123456789
    """
    from captioner.captions import caption as caption_stage
    from captioner.previews import preview
    from captioner.takes import retake
    from captioner.worklist import kept_in
    from popfactory.yardsticks import yardsticks_of
    from spine.run import Run

    prompts, models, n = given.pop("prompt"), given.pop("model"), given.pop("preview")
    ids = _ids(given.pop("only"), given.pop("only_from"))
    centroid = given.pop("kept_in")
    whole = {name: given[name] for name in ("failed_only", "limit", "force")}
    _require_one_kind(n, ids, prompts, models, dry_run, whole)
    if centroid is not None and (n is not None or ids or whole["force"]):
        raise click.UsageError("--kept-in goes with --failed-only, --limit and --dry-run only")
    if dry_run:
        _tell_estimate(Run(run), as_json, whole, centroid)
        return
    arguments = [
        "caption",
        str(run),
        *_typed(prompt=prompts, model=models, preview=n, **whole),
        *([] if centroid is None else ["--kept-in", str(centroid)]),
        *_ids_typed(ids),
    ]
    with working(run, arguments, quiet) as (opened, progress):
        if n is not None:
            manifest = preview(
                opened,
                n,
                prompts=prompts,
                models=models,
                ids=ids or None,
                force=whole["force"],
                progress=progress,
            )
        elif ids:
            prompt, model = (each[0] if each else None for each in (prompts, models))
            manifest = retake(opened, ids, prompt=prompt, model=model, progress=progress)
        else:
            yardsticks = yardsticks_of(opened, progress)
            kept = None if centroid is None else kept_in(opened, centroid)
            manifest = caption_stage(opened, ids=kept, yardsticks=yardsticks, progress=progress, **whole)
    report(manifest, quiet, as_json)
    if n is not None and not quiet and not as_json:
        click.echo(f"side by side: {run / manifest.facts['page']}")


def _ids(only: Sequence[int], file: TextIO | None) -> list[int]:
    """The ids that were named, in the command or in a file."""
    words = [] if file is None else [line.strip() for line in file if line.strip()]
    try:
        return [*only, *(int(word) for word in words)]
    except ValueError:
        wrong = next(word for word in words if not word.lstrip("-").isdecimal())
        raise click.UsageError(f"--only-from: {wrong[:40]!r} is no id; one a line was needed") from None


def _require_one_kind(
    n: int | None,
    ids: Sequence[int],
    prompts: Sequence[str],
    models: Sequence[str],
    dry_run: bool,
    whole: Mapping[str, Any],
) -> None:
    """See that the options belong to one kind of work: all pictures, a preview, or some again."""
    others = [name for name, value in whole.items() if value and (n is None or name != "force")]
    others += ["dry_run"] if dry_run else []
    if (n is not None or ids) and others:
        kind = "--preview" if n is not None else "--only"
        raise click.UsageError(f"--{others[0].replace('_', '-')} does not go with {kind}")
    if n is None and not ids and (prompts or models):
        raise click.UsageError(
            "--prompt and --model go with --preview or --only; for the whole run change [caption]"
        )
    if n is None and (len(prompts) > 1 or len(models) > 1):
        raise click.UsageError("--only takes one --prompt and one --model")


def _typed(**given: Any) -> list[str]:
    """Options as they are typed."""
    words = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value:
            words += [
                word
                for each in (value if isinstance(value, tuple) else (value,))
                for word in (flag, str(each))
            ]
    return words


def _ids_typed(ids: Sequence[int]) -> list[str]:
    """The ids as they are typed; of many the first ten, for a journal's eyes."""
    return _typed(only=tuple(ids[:10])) + ([f"... and {len(ids) - 10:,} more"] if len(ids) > 10 else [])


def _tell_estimate(run: "Run", as_json: bool, asked: Mapping[str, Any], centroid: int | None) -> None:
    from captioner.estimate import estimate, estimate_lines
    from captioner.worklist import kept_in

    found = estimate(run, ids=None if centroid is None else kept_in(run, centroid), **asked)
    told = json.dumps(dataclasses.asdict(found) | {"seconds": found.seconds})
    click.echo(told if as_json else "\n".join(estimate_lines(found)))


@click.command("export-captions")
@RUN
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def export_captions(run: Path, folder: Path, as_json: bool) -> None:
    """Write captions as JSON lines and as WebDataset sidecars.

    To FOLDER: what the captioner that [caption] names has said of selected pictures, as it said it; what curators
    chose or wrote instead stands in a release. Members have the names they have in a release's tars.

    \b
    Example:
        popfactory export-captions runs/pop-1 captions-of-pop-1
    """
    from captioner.exports import export
    from spine.run import Run

    counts = export(Run(run).require(), folder)
    told = f"{folder}: captions.jsonl with {counts['rows']:,} rows, {counts['tars']:,} tars with {counts['captions']:,}"
    click.echo(json.dumps(counts) if as_json else f"{told} captions")


@click.command("serve-captions")
@click.argument("model", default="demo")
@click.option("--revision", default="", help="Of the checkpoint; the newest without it.")
@click.option(
    "--port", default=8010, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
def serve_captions(model: str, revision: str, port: int) -> None:
    """Serve a LLaVA-1.5 checkpoint by OpenAI's protocol.

    On 127.0.0.1. MODEL is as [caption] model: demo, a folder, or a name on the hub. One picture at a time: for laptops
    and for trying the http engine; a large run is asked of a real engine.

    \b
    Example:
        popfactory serve-captions demo --port 8010
    """
    from captioner.serving import serve as serve_checkpoint

    serve_checkpoint(model, revision=revision, port=port)


COMMANDS = (caption, export_captions, serve_captions)
