"""What a similarity of two embeddings says of their pictures being one: precision and recall by threshold.

Drawn pictures, some of them somebody else's upload of another: scaled, cropped by up to 2 %, a little brighter or
darker, compressed again. Embedded by the demo model, which isn't ViT-L/14: another model, another threshold.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.report import report
from index_builder.embeddings import embed
from index_builder.numerics.near_duplicates import near_duplicate_groups
from index_builder.numerics.unit_vectors import unit_rows
from popfactory.demo_collection import draw_collection
from spine.config import DEMO, write_config
from spine.run import Run
from spine.settings import ClipConfig, Config
from spine.shards import read_shards
from spine.tables import METADATA

THRESHOLDS = (0.90, 0.92, 0.94, 0.96, 0.98, 0.99)
RULE = 0.94
"""[select] near_duplicate, clip-retrieval's own."""


def main() -> None:
    """Draw, embed, and compare all with all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    pool = 2_000 if parser.parse_args().quick else 6_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_collection(folder / "drawn", concepts=1, pool=pool)
        vectors, originals, scenes = embedded(folder)
    similar = np.triu(vectors @ vectors.T, 1)
    same = np.triu(originals[:, None] == originals, 1)
    alike = np.triu(scenes[:, None] == scenes, 1) & ~same
    for threshold in THRESHOLDS:
        found = similar >= threshold
        groups = near_duplicate_groups(vectors, threshold)
        repeats = np.flatnonzero(groups != np.arange(len(groups)))
        right = originals[repeats] == originals[groups[repeats]]
        report(
            f"near_duplicate_precision_{threshold:g}",
            float(same[found].mean()) if found.any() else 1.0,
            "of the pairs found show one picture",
            threshold=threshold,
            the_rule=threshold == RULE,
            recall=round(float((found & same).sum() / same.sum()), 4),
            pairs_found=int(found.sum()),
            pairs_of_one_picture=int(same.sum()),
            wrong_pairs_of_one_description=int((found & alike).sum()),
            left_out=len(repeats),
            left_out_rightly=round(float(right.mean()), 4) if len(repeats) else None,
            pictures=len(vectors),
            model="demo-clip",
        )


def embedded(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors; of each the number of its original and of its description."""
    run = Run(folder / "run")
    run.folder.mkdir()
    write_config(run.config, Config(clip=ClipConfig(model=DEMO, pretrained="")))
    embed(run, "pool", str(folder / "drawn" / "pool"))
    lines = (folder / "drawn" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    truth = {row["path"]: row for row in map(json.loads, lines)}
    parts, paths = [], []
    for vectors, table in read_shards(run.pool, METADATA):
        parts.append(unit_rows(vectors))
        paths += [path[path.index("pool/") :] for path in table.column("image_path").to_pylist()]
    rows = [truth[path] for path in paths]
    originals = [row["repeat_of"] or row["path"] for row in rows]
    numbers = [
        np.unique(names, return_inverse=True)[1] for names in (originals, [row["caption"] for row in rows])
    ]
    return np.concatenate(parts), numbers[0], numbers[1]


if __name__ == "__main__":
    main()
