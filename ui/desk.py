"""What the routes of all pages share: the run's tables, pictures, decisions, searches and jobs."""

import contextlib
import hashlib
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.funnel import funnel
from curation.views import Views
from spine.config import uses_demo_models
from spine.errors import ConfigError, FactoryError
from spine.run import Run
from ui.board import centroid_rows, filter_settings, funnel_rows, unsafe_limit
from ui.caption_tables import CaptionTables
from ui.claims import Claims
from ui.decision_log import DecisionLog
from ui.gallery import Gallery
from ui.job_queue import JobList, JobQueue
from ui.reveals import Reveals
from ui.search import Search
from ui.snapshot import Snapshot

DEMO_STAMP = "demo models: captions and scores come from small models trained on drawn scenes"


class Desk:
    """One run as its pages see it. Used from several threads."""

    def __init__(self, run: Run, *, server_url: str | None = None, server_token: str | None = None) -> None:
        self.run = run
        self.server_url = server_url
        self.snapshot = Snapshot(run)
        self.decisions = DecisionLog(run, self._centroids_digest)
        self.gallery = Gallery(run, self.snapshot, self.decisions)
        self.search = Search(run, self.snapshot, server_url, server_token)
        self.views = Views(run.decisions)
        self.claims = Claims()
        self.reveals = Reveals(run.reveals, self.gallery.is_hidden)
        self.captions = CaptionTables(run)
        self.jobs = JobQueue(run)
        self.job_list = JobList(run)

    def warm(self) -> None:
        """Read in the background what the first page will ask for."""

        def read() -> None:
            with contextlib.suppress(FactoryError, OSError):  # whoever asks for it is told
                self.snapshot.warm()

        threading.Thread(target=read, name="warm", daemon=True).start()

    def close(self) -> None:
        """Stop what runs beside the server; jobs at work go on."""
        self.jobs.close()
        self.decisions.close()
        self.gallery.close()
        self.search.close()

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
        rows = centroid_rows(
            snapshot.centroids(),
            snapshot.neighbour_counts(),
            snapshot.selection(),
            self.decisions.counts(),
            self.decisions.centroids(),
            exemplars.table.set_column(place, "punsafe", known),
            unsafe_limit(snapshot.config().filters),
        )
        images = snapshot.manifest(self.run.images)
        depths = images.parameters.get("depths", []) if images is not None else []
        found = self.decisions.found_counts()
        own, disputed = self.decisions.own_settings(), self.decisions.disputed()
        aesthetics = snapshot.mean_aesthetics()
        for row in rows:
            number = int(row["centroid"])
            row["disputed"] = disputed[number]
            row["aesthetic"] = round(aesthetics[number], 3) if number in aesthetics else None
            row["depth"] = depths[number] if number < len(depths) else 0
            row["found"] = found.get(number, 0)
            if number in own:
                row["own"] = own[number]
        self._picture_by_neighbours([row for row in rows if not row["exemplars"]])
        return rows

    def _picture_by_neighbours(self, rows: Sequence[dict[str, Any]]) -> None:
        """Give centroids without an exemplar, such as those made of words, their nearest selected picture."""
        first = self.snapshot.first_selected() if rows else {}
        shown = [(row, first[int(row["centroid"])]) for row in rows if int(row["centroid"]) in first]
        snapshot = self.snapshot
        try:
            limit, lists = unsafe_limit(snapshot.config().filters), snapshot.lists()
        except ConfigError:
            return  # a list that can't be read: no picture is shown
        ids = np.array([picture for _, picture in shown], dtype=np.int64)
        images, scores = snapshot.images().rows(ids).to_pylist(), snapshot.scores().rows(ids)
        unsafe = scores.column("unsafe").to_pylist()
        for (row, _), image, score in zip(shown, images, unsafe, strict=True):
            keys = {name: image[name] for name in ("url", "sha256", "md5", "pdq")}
            if image["sha256"] and lists.blocks(picture_id=image["id"], **keys) is None:
                hidden = score is None or score > limit
                row["exemplars"] = [{"sha256": image["sha256"], "blurred": hidden}]

    def record(self, content: Any) -> dict[str, Any]:
        """Record what a page sent; see `DecisionLog.record`."""
        return self.decisions.record(
            content, self.snapshot.digest(self.run.neighbours), self._still_there, self._found
        )

    def _centroids_digest(self) -> str | None:
        return self.snapshot.digest(self.run.centroids)

    def _still_there(self, centroid_id: int, ids: Sequence[int]) -> set[int]:
        there = self.snapshot.neighbours(centroid_id).column("id").to_pylist()
        return set(ids).intersection([*there, *self.decisions.found(centroid_id)])

    def _found(self, like: str, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What the pool says of pictures that a search found; empty where it can't be asked again."""
        try:
            table = self.search.pool(like)
        except FactoryError:
            return {}  # the keep is stored, and who gave it is told
        wanted = table.filter(pc.is_in(table.column("id"), value_set=pa.array(ids, pa.int64())))
        return {row["id"]: row for row in wanted.to_pylist()}

    def state(self) -> str:
        """Changes when a stage is published anew, or the settings or a list change: pages then ask for all anew."""
        folders = (
            self.run.centroids,
            self.run.neighbours,
            self.run.images,
            self.run.scores,
            self.run.selection,
        )
        parts = [self.snapshot.digest(folder) or "" for folder in (*folders, self.run.captions)]
        config = self.snapshot.config()
        parts.append(str(self.snapshot.centroids().num_rows))  # grows with every concept that is added
        return hashlib.sha256(
            "\n".join([*parts, repr(config), self.snapshot.lists().digest]).encode()
        ).hexdigest()[:16]
