"""What the Release page shows of the selection as it stands: yield, balance, distributions, rights, agreement."""

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.decisions import read_verdicts
from curation.unfilled import unfilled_centroids
from curation.verdicts import Verdicts
from spine.polite_web import NOTHING_RESERVED
from spine.settings import Config
from spine.table_files import read_parts
from spine.tables import IMAGES
from ui.desk import Desk
from ui.figures import PLACED, balance, distribution, yields
from ui.pictures import pictures_of

_GROUPS_SHOWN = 12


class ReleaseFigures:
    """The figures of one run, counted anew when a stage, a setting or a decision changed. Used from several threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._counted: tuple[tuple[str, int], dict[str, Any]] | None = None

    def figures(self) -> dict[str, Any]:
        """Yield, balance, distributions, near-duplicates, opt-outs and agreement of the selection as it stands.

        Raises:
            ConfigError, DataError: The settings or a table can't be read.
        """
        states = (self._desk.state(), self._desk.decisions.last_event())
        with self._lock:
            if self._counted is None or self._counted[0] != states:
                self._counted = (states, self._count())
            return self._counted[1]

    def _count(self) -> dict[str, Any]:
        snapshot, config = self._desk.snapshot, self._desk.snapshot.config()
        verdicts = read_verdicts(self._desk.run)
        table = snapshot.selection()
        chosen = table.filter(pc.equal(table["verdict"], "selected"))
        ids = np.unique(np.asarray(chosen["id"].to_numpy(), dtype=np.int64))
        images, scores = snapshot.images().rows(ids), snapshot.scores().rows(ids)
        sides = pc.min_element_wise(images["width"], images["height"], skip_nulls=False)
        best = np.asarray(chosen["similarity"].to_numpy(), dtype=np.float64)
        least_px, least_aesthetic = config.filters.min_side_px or None, config.filters.aesthetic_min.value
        return {
            "selected": len(ids),
            **self._yield(table, config, verdicts),
            "distributions": [
                _named("Shorter side, px", distribution(_floats(sides), whole=True), least_px),
                _named("Aesthetic score", distribution(_floats(scores["aesthetic"])), least_aesthetic),
                _named("Similarity to the centroid", distribution(best), None),
                _named("Words of a caption", distribution(self._words(ids), whole=True), None),
            ],
            "duplicates": self._duplicates(table),
            "rights": self._rights(ids),
            "agreement": self._desk.decisions.agreement(),
        }

    def _yield(self, table: pa.Table, config: Config, verdicts: Verdicts) -> dict[str, Any]:
        centroids = self._desk.snapshot.centroids()
        k = centroids.num_rows
        if not k or not table.num_rows:
            return {"yield": None, "balance": None}
        chosen = table.filter(pc.equal(table["verdict"], "selected"))["centroid_id"]
        selected = np.bincount(np.asarray(chosen.to_numpy(), dtype=np.int64), minlength=k)[:k]
        quotas, left_out = verdicts.quotas(k, config.select.quota_per_centroid), verdicts.centroids_left_out()
        short = unfilled_centroids(self._desk.run, config, verdicts)
        return {
            "yield": yields(selected, quotas, left_out, short),
            "balance": balance(centroids.select(list(PLACED)).to_pylist(), selected, quotas, left_out),
        }

    def _words(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        captions = self._desk.captions.now()
        here = captions.own & np.isin(captions.ids, ids)
        return captions.measures["words"][here]

    def _rights(self, ids: np.ndarray[Any, Any]) -> dict[str, int]:
        """What the hosts of the selected pictures reserve, as far as they were asked; and who was left for it."""
        images = read_parts(self._desk.run.images, IMAGES, ("id", "opt_out", "reason"))
        words = images.filter(pc.is_in(images["id"], pa.array(ids)))["opt_out"]
        asked, nothing = len(words) - words.null_count, pc.sum(pc.equal(words, NOTHING_RESERVED)).as_py() or 0
        return {
            "nothing": nothing,
            "reserved": asked - nothing,
            "not_asked": len(ids) - asked,
            "not_fetched": pc.sum(pc.equal(images["reason"], "opted_out")).as_py() or 0,
        }

    def _duplicates(self, table: pa.Table) -> dict[str, Any]:
        groups = self._desk.snapshot.groups().table
        many = groups.filter(
            pc.and_(pc.greater(groups["group_size"], 1), pc.equal(groups["group"], groups["id"]))
        )
        largest = many.sort_by([("group_size", "descending"), ("id", "ascending")]).slice(0, _GROUPS_SHOWN)
        rows = largest.to_pylist()
        pictures = pictures_of(self._desk, [row["id"] for row in rows])
        return {
            "groups": many.num_rows,
            "pictures": int(pc.sum(many["group_size"]).as_py() or 0),
            "rejected": int(pc.sum(pc.equal(table["rule"], "near_duplicate")).as_py() or 0),
            "largest": [
                {"id": str(row["id"]), "size": row["group_size"], "picture": pictures[row["id"]]}
                for row in rows
            ],
        }


def _named(label: str, found: dict[str, Any] | None, limit: float | None) -> dict[str, Any]:
    return {"label": label, "limit": limit, "values": found}


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
