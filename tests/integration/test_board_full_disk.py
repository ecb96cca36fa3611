"""The board on a disk that is really full: what it shows, what it says, and what it keeps."""

import json
import logging

import pytest
from fastapi.testclient import TestClient

from curation.decisions import Decisions
from spine.errors import DataError
from tests.small_disk import fill, small_disk
from tests.unit.ui.planted import EACH, Planted, plant
from ui.app import build_app

_WRITE = {"content-type": "application/json", "x-popfactory": "1"}


def _board(planted: Planted) -> TestClient:
    return TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860")


def _keep(board: TestClient, planted: Planted, seq: int) -> tuple[int, str]:
    """Keep picture number `seq`: status of the reply, and its error."""
    event = {"seq": seq, "action": "keep", "ids": [str(planted.ids[seq])], "centroid_id": 0}
    content = {"client": "page", "curator": "ada", "events": [event]}
    reply = board.post("/api/decisions", headers=_WRITE, content=json.dumps(content))
    return reply.status_code, reply.json().get("error", "")


def test_tables_are_read_without_their_cache_and_one_line_says_so(tmp_path, caplog):
    with small_disk(tmp_path / "disk", "4m") as disk:
        planted = plant(disk / "run")
        app = build_app(planted.run)
        fill(disk)  # before the board begins to read in the background
        with TestClient(app, base_url="http://127.0.0.1:7860") as board:
            with caplog.at_level(logging.WARNING, "ui.mapped_tables"):
                rows = board.get("/api/neighbours?centroid=1").json()["rows"]
                again = board.get("/api/neighbours?centroid=1").json()["rows"]

            assert [row["id"] for row in rows] == [str(each) for each in planted.ids[EACH : 2 * EACH]]
            assert rows == again and rows[0]["sha256"] == planted.hashes[EACH]
            assert board.get(f"/thumb/{planted.hashes[EACH]}.webp").status_code == 200
            told = [record.getMessage() for record in caplog.records]
            assert sum("images-" in line for line in told) == 1
            assert all("No space left on device" in line and "free some space" in line for line in told)
        assert list(planted.run.mapped_tables.glob("*.arrow")) == []


def test_a_board_that_starts_without_room_says_what_it_needs(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        planted = plant(disk / "run")
        fill(disk)

        with pytest.raises(DataError, match="disk is full; free some space"):
            build_app(planted.run)


def test_a_decision_is_acknowledged_only_once_it_is_stored(tmp_path):
    with small_disk(tmp_path / "disk", "4m") as disk:
        planted = plant(disk / "run")
        acknowledged = []
        with _board(planted) as board:
            for seq in (1, 2, 3):
                filler = fill(disk)
                for _ in range(3):
                    status, error = _keep(board, planted, seq)
                    assert status == 409 and "the disk is full; free some space" in error
                filler.unlink()
                assert _keep(board, planted, seq)[0] == 200  # the same again, as a page sends it
                acknowledged.append(seq)
            filler = fill(disk)
            assert "the disk is full; free some space" in board.get("/api/centroids").json()["error"]
        filler.unlink()

        assert [event.seq for event in Decisions.open(planted.run.decisions).history()] == acknowledged
