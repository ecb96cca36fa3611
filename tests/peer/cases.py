"""What both servers are asked: every option by itself and with the others, and what one of them gets wrong."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.peer.indices import ARROW

FLAGS = ("deduplicate", "use_safety_model", "use_violence_detector")
AESTHETICS: tuple[dict[str, object], ...] = (
    {},
    {"aesthetic_score": "", "aesthetic_weight": ""},
    {"aesthetic_score": 9, "aesthetic_weight": 0.5},
    {"aesthetic_score": "2", "aesthetic_weight": "1.5"},
)
SIZES: tuple[tuple[object, object], ...] = ((10, 10), (0, 30), (-2, 12), (None, 8), (500, 9), (3, 300))


@dataclass(frozen=True)
class Case:
    """One request that both answer alike."""

    route: str
    index: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Defect:
    """One request that clip-retrieval answers in a way ours does not, and how each answers."""

    why: str
    route: str
    body: Any
    theirs: int
    """Status."""
    ours: int
    code: str = ""
    """Of our refusal."""


def cases(
    indices: tuple[str, ...], n: int, queries: np.ndarray, words: list[dict[str, Any]]
) -> Iterator[Case]:
    """Requests of all kinds.

    Args:
        indices: Names; the last has a text index.
        n: Rows of each.
        queries: (8, d) unit vectors.
        words: Queries of other kinds, such as {"text": "a red star"}, where the servers have a model.
    """
    vectors = [{"embedding_input": [round(float(value), 6) for value in query]} for query in queries]
    for index in indices:
        base = {"modality": "image", "indice_name": index, "num_images": 4, "num_result_ids": 40}
        for number, flags in enumerate(itertools.product((False, True), repeat=len(FLAGS))):
            for aesthetic in AESTHETICS:
                options = dict(zip(FLAGS, flags, strict=True)) | aesthetic
                yield Case("/knn-service", index, base | vectors[number % 8] | options)
        for number, (num_images, k) in enumerate(SIZES):
            sizes = {"num_images": num_images, "num_result_ids": k}
            if num_images == 0 and index in ARROW:
                continue  # see defects
            for flag in (False, True):
                yield Case("/knn-service", index, base | vectors[number] | sizes | {"deduplicate": flag})
        for query in (*words, {"embedding_input": [10 * x for x in vectors[0]["embedding_input"]]}):
            yield Case("/knn-service", index, base | query | {"deduplicate": True})
        body = {"modality": "image", "indice_name": index, "num_images": 6} | vectors[1]
        yield Case("/knn-service", index, body)
        nothing = {"text": "", "image": None, "image_url": None}
        yield Case("/knn-service", index, body | nothing | {"use_mclip": False})
        yield Case("/knn-service", index, body | {"num_result_ids": n + 100})
        yield Case("/metadata", index, {"ids": [n - 1, 0, 7, 7, n // 2], "indice_name": index})
        yield Case("/metadata", index, {"ids": [], "indice_name": index})
    for query in (*vectors[:3], *words):
        for flag in (False, True):
            body = {"modality": "text", "indice_name": indices[-1], "num_images": 5, "num_result_ids": 60}
            yield Case("/knn-service", "text", body | query | {"deduplicate": flag})
    yield Case(
        "/knn-service", indices[0], {"modality": "image", "indice_name": None, "num_images": 3} | vectors[0]
    )


def defects(indices: tuple[str, ...], d: int) -> list[Defect]:
    """What clip-retrieval gets wrong and survives: a null in an embedding ends its process."""
    good: dict[str, Any] = {
        "modality": "image",
        "indice_name": indices[0],
        "num_images": 3,
        "embedding_input": [0.1] * d,
    }
    knn, rows = "/knn-service", "/metadata"

    def without(name: str) -> dict[str, Any]:
        return {key: value for key, value in good.items() if key != name}

    return [
        Defect("a wrong dimension", knn, good | {"embedding_input": [0.1] * 3}, 500, 400, "wrong_dimension"),
        Defect(
            "several embeddings", knn, good | {"embedding_input": [[0.1] * d] * 2}, 500, 400, "bad_request"
        ),
        Defect("nothing asked", knn, without("embedding_input"), 500, 400, "bad_request"),
        Defect("an unknown index", knn, good | {"indice_name": "no"}, 500, 404, "unknown_index"),
        Defect(
            "an unknown index and no ids", rows, {"ids": [], "indice_name": "no"}, 200, 404, "unknown_index"
        ),
        Defect("no text index", knn, good | {"modality": "text"}, 500, 400, "no_modality"),
        Defect("a modality that is none", knn, good | {"modality": "sound"}, 500, 400, "bad_request"),
        Defect("the index left out", knn, without("indice_name"), 500, 200),
        Defect("the modality left out", knn, without("modality"), 500, 200),
        Defect("k of nothing", knn, good | {"num_result_ids": 0}, 500, 400, "bad_request"),
        Defect("k as a text", knn, good | {"num_result_ids": "5"}, 500, 400, "bad_request"),
        Defect("an aesthetic score of null", knn, good | {"aesthetic_score": None}, 500, 200),
        Defect("an aesthetic score too high", knn, good | {"aesthetic_score": 42}, 500, 400, "bad_request"),
        Defect("a body that is a list", knn, [], 500, 400, "bad_request"),
        Defect("a negative row", rows, {"ids": [-1], "indice_name": indices[0]}, 500, 400, "unknown_row"),
        Defect(
            "a row too many: Arrow gives another row's data",
            rows,
            {"ids": [10**9, 0], "indice_name": "ivfpq"},
            200,
            400,
            "unknown_row",
        ),
        Defect(
            "no metadata asked of Arrow files",
            knn,
            good | {"num_images": 0, "num_result_ids": 9, "indice_name": "flat"},
            500,
            200,
        ),
        Defect("rows as texts", rows, {"ids": ["a"], "indice_name": indices[0]}, 500, 400, "unknown_row"),
    ]
