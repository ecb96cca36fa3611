"""What the routes of all pages share: the run's tables, thumbnails, decisions and jobs."""

import hashlib
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from fastapi import Response
from fastapi.responses import JSONResponse

from curation.funnel import funnel
from spine.config import uses_demo_models
from spine.errors import DataError, FactoryError
from spine.run import Run
from ui.board import (
    Measured,
    centroid_rows,
    filter_settings,
    funnel_rows,
    neighbour_rows,
    unsafe_limit,
)
from ui.decision_log import DecisionLog
from ui.job_queue import JobQueue
from ui.snapshot import Snapshot
from ui.thumbnails import Thumbnails

DEMO_STAMP = "demo models: captions and scores come from small models trained on drawn scenes"

_logger = logging.getLogger(__name__)


class Desk:
    """One run as its pages see it. Used from several threads."""

    def __init__(self, run: Run, *, server_url: str | None = None) -> None:
        self.run = run
        self.server_url = server_url
        self.snapshot = Snapshot(run)
        self.thumbnails = Thumbnails(run.thumbnails)
        self.decisions = DecisionLog(run)
        self.jobs = JobQueue(run)

    def close(self) -> None:
        """Stop what runs beside the server; jobs at work go on."""
        self.jobs.close()
        self.thumbnails.close()

    def about(self) -> dict[str, Any]:
        """The run as the page's head, filters and captioning panel need it."""
        config, snapshot = self.snapshot.config(), self.snapshot
        stages = {
            name: snapshot.manifest(folder)
            for name, folder in (
                ("centroids", self.run.centroids),
                ("neighbours", self.run.neighbours),
                ("images", self.run.images),
                ("scores", self.run.scores),
                ("selection", self.run.selection),
                ("captions", self.run.captions),
            )
        }
        facts = [manifest.facts for manifest in stages.values() if manifest is not None]
        demo = uses_demo_models(config) or any(fact.get("demo_models") for fact in facts)
        selection = stages["selection"]
        return {
            "run": self.run.folder.absolute().name,
            "run_id": hashlib.sha256(str(self.run.folder.resolve()).encode()).hexdigest()[:16],
            "demo": DEMO_STAMP if demo else None,
            "stages": {name: manifest is not None for name, manifest in stages.items()},
            "filters": filter_settings(config.filters),
            "caption": {
                "engine": config.caption.engine,
                "model": config.caption.model,
                "prompt": config.caption.prompt,
            },
            "selected": selection.counts.get("pictures_selected") if selection is not None else None,
            "quota": config.select.quota_per_centroid,
            "funnel": funnel_rows(funnel(self.run)),
            "server": self.server_url,
        }

    def centroids(self) -> list[dict[str, Any]]:
        """The list of centroids."""
        snapshot = self.snapshot
        exemplars = snapshot.exemplars()
        scored = snapshot.exemplar_scores().rows(exemplars.ids).column("unsafe")
        place = exemplars.table.schema.get_field_index("punsafe")
        known = pc.coalesce(scored, exemplars.table.column("punsafe"))
        return centroid_rows(
            snapshot.centroids(),
            snapshot.neighbour_counts(),
            snapshot.selection(),
            self.decisions.counts(),
            exemplars.table.set_column(place, "punsafe", known),
            unsafe_limit(snapshot.config().filters),
        )

    def neighbours(self, centroid_id: int) -> list[dict[str, Any]]:
        """The neighbours of one centroid, in order of rank.

        Raises:
            DataError: The run has no such centroid.
        """
        snapshot, lists = self.snapshot, self.snapshot.lists()
        if not pc.any(pc.equal(snapshot.centroids().column("centroid_id"), centroid_id)).as_py():
            raise DataError(f"centroid {centroid_id} is not in this run; reload the page")
        neighbours = snapshot.neighbours(centroid_id)
        ids: npt.NDArray[np.int64] = np.asarray(
            neighbours.column("id").to_numpy(zero_copy_only=False), dtype=np.int64
        )
        measured = Measured(
            snapshot.images().rows(ids),
            snapshot.scores().rows(ids),
            snapshot.groups().rows(ids),
            snapshot.captions().rows(ids),
        )
        selection = snapshot.selection()
        return neighbour_rows(
            neighbours,
            measured,
            selection.filter(pc.equal(selection.column("centroid_id"), centroid_id)),
            self.decisions.verdicts(ids.tolist()),
            snapshot.config(),
            lambda picture, url, image: lists.blocks(
                picture_id=picture, url=url, sha256=image["sha256"], md5=image["md5"], pdq=image["pdq"]
            ),
        )

    def record(self, content: Any) -> dict[str, Any]:
        """Record what a page sent; see `DecisionLog.record`."""
        manifest = self.snapshot.manifest(self.run.neighbours)
        return self.decisions.record(content, manifest.digest if manifest is not None else None)

    def thumbnail(self, sha256: str, *, blurred: bool) -> Response:
        """The thumbnail of a picture of this run; 404 where there is none, 410 where a list keeps it out."""
        picture = self.snapshot.find_picture(sha256)
        if picture is None:
            return JSONResponse({"error": "no picture of this run has this hash"}, 404)
        rule = self.snapshot.lists().blocks(
            picture_id=picture.picture_id,
            url=picture.url,
            sha256=sha256,
            md5=picture.md5,
            pdq=picture.pdq,
        )
        if rule is not None:
            return JSONResponse({"error": "a list keeps this picture out"}, 410)
        try:
            content = self.thumbnails.get(sha256, picture.place, blurred=blurred)
        except FactoryError as error:
            _logger.warning("no thumbnail of %s: %s", sha256, error)
            return JSONResponse({"error": "this picture can't be opened"}, 404)
        headers = {"Cache-Control": "private, max-age=31536000, immutable"}
        return Response(content, media_type="image/webp", headers=headers)
