"""What the Captions page shows of a run: pictures with their captions, previews, and what can be asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.verdicts import Verdict
from spine.config import DEMO, PRESETS, preset
from spine.config_edit import digest_of
from spine.errors import DataError
from spine.ids import caption_id
from spine.manifest import find_manifest
from spine.prompts import prompts_of
from spine.settings import CaptionConfig
from spine.table_files import read_table
from spine.tables import CAPTIONS
from ui.board import unsafe_limit
from ui.caption_cards import card
from ui.caption_list import NONE, Asked, CaptionList, caption_list, places_of
from ui.caption_tables import CLIP, Captions, flag_bits
from ui.desk import Desk

MOST_CARDS = 200
"""On one page."""

MOST_AT_ONCE = 10_000
"""Captions that one decision is about."""

_TRIES = 5
_SEEN = ("sha256", "url", "md5", "pdq", "status", "reason", "width", "height")


class CaptionDesk:
    """The captions of one run as their page sees them. Used from several threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tables = desk.captions

    def page(
        self,
        asked: Asked,
        *,
        begin: int | None = None,
        after: int | None = None,
        before: int | None = None,
        limit: int = 40,
    ) -> dict[str, Any]:
        """Some pictures with their captions, and the counts of all.

        Args:
            asked: Which of them, in which order.
            begin: Id of the picture to begin with.
            after: Id of the picture to go on after.
            before: Id of the picture to end before.
            limit: Pictures at most, 1 to MOST_CARDS.

        Raises:
            DataError: A table is damaged.
        """
        last_event = self._desk.decisions.last_event()
        for _ in range(_TRIES):
            captions, verdicts, found = self._list(asked)
            start, known = found.start(begin=begin, after=after, before=before, limit=limit)
            end = start + min(max(limit, 1), MOST_CARDS)
            cards = self._cards(found, found.shown[start:end], captions, verdicts)
            if cards is not None:
                return {
                    "cards": cards,
                    "start": start,
                    "total": len(found.shown),
                    "selected": len(found.ids),
                    "counts": found.counts,
                    "flagged": found.flagged,
                    "known": known,
                    "last_event": last_event,
                    **self._stage(),
                }
        raise DataError("the captions change faster than they can be read; try again")

    def unflagged(self, asked: Asked) -> dict[str, Any]:
        """The captions without a flag that nobody decided on, as many as one decision takes."""
        captions, _, found = self._list(
            Asked(show="new", flag=NONE, centroid=asked.centroid, sort=asked.sort)
        )
        places = found.own[found.shown[:MOST_AT_ONCE]]
        names = captions.names.take(pa.array(places)).to_pylist()
        return {
            "captions": list(dict.fromkeys(names)),
            "pictures": [str(each) for each in found.ids[found.shown[:MOST_AT_ONCE]].tolist()],
            "total": len(found.shown),
        }

    def shown(self, asked: Asked, limit: int) -> dict[str, Any]:
        """The pictures that are listed, the first of them by id, and how many there are."""
        _, _, found = self._list(asked)
        return {
            "pictures": [str(each) for each in found.ids[found.shown[:limit]].tolist()],
            "total": len(found.shown),
        }

    def form(self) -> dict[str, Any]:
        """What a captioning run can be told: the settings as they stand, and what there is to choose from."""
        config = self._desk.snapshot.config().caption
        models = [config.model, DEMO, *(preset(name).caption.model for name in PRESETS)]
        return {
            "seen": digest_of(self._desk.run.config.read_bytes()),
            "settings": {
                name: list(value) if isinstance(value := getattr(config, name), tuple) else value
                for name in CaptionConfig.__dataclass_fields__
            },
            "models": list(dict.fromkeys(models)),
            "prompts": [
                {"prompt_id": each.prompt_id, "text": each.text, "prefix": each.prefix}
                for each in prompts_of(self._desk.run).values()
            ],
        }

    def previews(self) -> list[dict[str, Any]]:
        """The finished previews, newest first."""
        found = []
        for folder in sorted(self._desk.run.caption_previews.glob("*/")):
            manifest = find_manifest(folder)
            if manifest is not None:
                found.append(
                    {
                        "name": folder.name,
                        "created": manifest.created,
                        "pictures": len(manifest.facts["ids"]),
                        "captioners": manifest.facts["captioners"],
                    }
                )
        return sorted(found, key=lambda each: each["created"], reverse=True)

    def preview(self, name: str) -> dict[str, Any]:
        """A preview's pictures, each with a caption by every captioner.

        Raises:
            DataError: There is no such preview.
        """
        folder = next(
            (each for each in self._desk.run.caption_previews.glob("*/") if each.name == name), None
        )
        manifest = find_manifest(folder) if folder is not None else None
        if folder is None or manifest is None:
            raise DataError(f"preview {name} is not there any more; make it again")
        ids = np.array([int(each) for each in manifest.facts["ids"]], dtype=np.int64)
        said: list[dict[int, tuple[bool, int, dict[str, Any]]]] = []
        for each in manifest.facts["captioners"]:
            rows = read_table(folder / Path(each["part"]).name, CAPTIONS)
            bits = flag_bits(rows).tolist()
            said.append(
                {row["id"]: (True, flags, row) for flags, row in zip(bits, rows.to_pylist(), strict=True)}
            )
        selection = self._desk.snapshot.selection()
        chosen = selection.filter(pc.is_in(selection["id"], pa.array(ids)))
        of = dict(zip(chosen["id"].to_pylist(), chosen["centroid_id"].to_pylist(), strict=True))
        known = [number for number in ids.tolist() if number in of]
        rows_of = {number: [by[number] for by in said if number in by] for number in known}
        cards = self._drawn([(number, of[number]) for number in known], rows_of, {})
        return {"name": name, "captioners": manifest.facts["captioners"], "cards": cards}

    def _list(self, asked: Asked) -> tuple[Captions, dict[str, Verdict], CaptionList]:
        captions, verdicts = self._tables.now(), self._desk.decisions.captions()
        return captions, verdicts, caption_list(self._desk.snapshot.selection(), captions, verdicts, asked)

    def _stage(self) -> dict[str, Any]:
        """Who wrote the captions, whether all is captioned, and whether the selection has changed since."""
        snapshot, run = self._desk.snapshot, self._desk.run
        manifest, selection = snapshot.manifest(run.captions), snapshot.manifest(run.selection)
        outdated = manifest is not None and (
            selection is None or manifest.inputs.get("selection") != selection.digest
        )
        return {"finished": manifest is not None, "outdated": outdated}

    def _cards(
        self,
        found: CaptionList,
        shown: np.ndarray[Any, Any],
        captions: Captions,
        verdicts: dict[str, Verdict],
    ) -> list[dict[str, Any]] | None:
        """None where a table was replaced meanwhile."""
        ids = found.ids[shown]
        places = places_of(captions, ids)
        every = [place for each in places.values() for place in each]
        rows = self._tables.rows(captions, every)
        if rows is None:
            return None
        row_at = dict(zip(every, rows, strict=True))
        said = {
            number: [
                (bool(captions.own[at]), int(captions.flags[at]), row_at[at] | _agreement(captions, at))
                for at in each
            ]
            for number, each in places.items()
        }
        pictures = list(zip(ids.tolist(), found.centroids[shown].tolist(), strict=True))
        return self._drawn(pictures, said, verdicts)

    def _drawn(
        self,
        pictures: Sequence[tuple[int, int]],
        said: dict[int, list[tuple[bool, int, dict[str, Any]]]],
        verdicts: dict[str, Verdict],
    ) -> list[dict[str, Any]]:
        snapshot, lists = self._desk.snapshot, self._desk.snapshot.lists()
        ids = np.array([number for number, _ in pictures], dtype=np.int64)
        limit = unsafe_limit(snapshot.config().filters)
        pool = {
            (row["centroid_id"], row["id"]): row
            for row in snapshot.pool_rows(
                {centroid for _, centroid in pictures}, ids.tolist(), ("caption", "url", "punsafe")
            ).to_pylist()
        }
        nothing = {"caption": None, "url": None, "punsafe": None}
        labels = snapshot.centroids().select(["centroid_id", "label"]).to_pylist()
        label_of = {row["centroid_id"]: row["label"] for row in labels}
        images = snapshot.images().rows(ids).select(_SEEN).to_pylist()
        unsafe = snapshot.scores().rows(ids)["unsafe"].to_pylist()
        cards = []
        for (number, centroid), image, own_unsafe in zip(pictures, images, unsafe, strict=True):
            of_pool = pool.get((centroid, number), nothing)
            rule = lists.blocks(
                picture_id=number,
                url=of_pool["url"] or image["url"],
                sha256=image["sha256"],
                md5=image["md5"],
                pdq=image["pdq"],
            )
            cards.append(
                card(
                    picture_id=number,
                    centroid=centroid,
                    label=label_of.get(centroid) or f"centroid {centroid}",
                    image=image,
                    unsafe=own_unsafe if own_unsafe is not None else of_pool["punsafe"],
                    alt=of_pool["caption"],
                    rule=rule,
                    captions=[each for each in said[number] if _is_of(image["sha256"], each)],
                    verdicts=verdicts,
                    limit=limit,
                )
            )
        return cards


def _is_of(sha256: str | None, said: tuple[bool, int, dict[str, Any]]) -> bool:
    """Whether a caption is of the picture as it is now: a shelf keeps those of earlier bytes."""
    own, _, row = said
    if own or sha256 is None or row["captioner"] is None:
        return True
    return bool(caption_id(sha256, row["captioner"], row["take"] or 0) == row["caption_id"])


def _agreement(captions: Captions, place: int) -> dict[str, Any]:
    """What CLIP says of a caption."""
    value = float(captions.measures[CLIP][place])
    return {"clip": None if value != value else round(value, 3), "worst": captions.worst.get(place)}
