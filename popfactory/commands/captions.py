"""The captioner's stage, and its small server."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from popfactory.commands.frame import RUN, report, result_options, working


@click.command()
@RUN
@click.option(
    "--failed-only", is_flag=True, help="Ask again for the pictures that failed, and for no others."
)
@click.option("--limit", type=click.IntRange(1), help="So many pictures at most, then stop.")
@click.option("--dry-run", is_flag=True, help="Say what would be asked and how long it takes; ask nothing.")
@click.option("--force", is_flag=True, help="Throw this captioner's captions away and start over.")
@result_options
def caption(run: Path, dry_run: bool, quiet: bool, as_json: bool, **asked: Any) -> None:
    """Describe the selected pictures.

    Reads RUN/selection and RUN/images, writes RUN/captions. What is there is not asked again; captions of another
    model, prompt or parameters are kept beside. How long it takes is told from this captioner's earlier jobs.

    \b
    Example:
        popfactory caption runs/pop-1 --dry-run
        popfactory caption runs/pop-1 --failed-only
    """
    from captioner.captions import caption as caption_stage
    from captioner.estimate import estimate, estimate_lines
    from spine.run import Run

    if dry_run:
        found = estimate(Run(run), **asked)
        told = json.dumps(dataclasses.asdict(found) | {"seconds": found.seconds})
        click.echo(told if as_json else "\n".join(estimate_lines(found)))
        return
    given = [f"--{name.replace('_', '-')}" for name in ("failed_only", "force") if asked[name]]
    given += ["--limit", str(asked["limit"])] if asked["limit"] else []
    with working(run, ["caption", str(run), *given], quiet) as (opened, progress):
        manifest = caption_stage(opened, progress=progress, **asked)
    report(manifest, quiet, as_json)


@click.command("serve-captions")
@click.argument("model", default="demo")
@click.option("--revision", default="", help="Of the checkpoint; the newest without it.")
@click.option("--port", default=8010, show_default=True, type=click.IntRange(1, 65535))
def serve_captions(model: str, revision: str, port: int) -> None:
    """Serve a LLaVA-1.5 checkpoint as a small OpenAI-compatible server on 127.0.0.1.

    MODEL is as [caption] model: demo, a folder, or a name on the hub. One picture at a time: for laptops and for
    trying the http engine; a large run is asked of a real engine.

    \b
    Example:
        popfactory serve-captions demo --port 8010
    """
    from captioner.serving import serve as serve_checkpoint

    serve_checkpoint(model, revision=revision, port=port)


COMMANDS = (caption, serve_captions)
