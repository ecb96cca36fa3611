"""The demo's run, looked at as its user would."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spine.config import load_config, write_config
from spine.manifest import read_manifest, verify
from spine.run import Run
from spine.settings import TWO_STEP
from spine.sources import read_bytes
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS, FULL_SIZE, IMAGES, SELECTION, STATUSES

LAION_POP = [
    "url",
    "key",
    "cogvlm_caption",
    "llava_caption",
    "nsfw_prediction",
    "alt_txt",
    "alt_txt_similarity",
    "width",
    "height",
    "original_width",
    "original_height",
    "exif",
]


def _release(run):
    return run.release("demo-pop", "1.0")


def test_the_release_has_a_caption_for_each_row(demo_run):
    table = pq.read_table(_release(demo_run) / "dataset.parquet")

    assert table.num_rows > 20
    assert table.column_names[:12] == LAION_POP
    assert all(
        caption and not caption.startswith("This image showcases") for caption in table["caption"].to_pylist()
    )
    assert table["llava_caption"].to_pylist() == table["caption"].to_pylist()
    assert table["cogvlm_caption"].null_count == table.num_rows
    assert len(set(table["id"].to_pylist())) == table.num_rows


def test_every_row_of_the_release_leads_back_to_its_picture(demo_run):
    import hashlib

    for row in pq.read_table(_release(demo_run) / "dataset.parquet").to_pylist():
        content = read_bytes(row["image_path"])
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
        assert int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True) == row["id"]
        assert min(row["width"], row["height"]) >= 768


def test_every_input_has_exactly_one_status_and_the_counts_add_up(demo_run):
    for collection in ("concepts", "pool"):
        folder = demo_run.collection(collection)
        counts = read_manifest(folder).counts
        tables = [read_table(path, STATUSES) for path in sorted((folder / "statuses").glob("*.parquet"))]
        inputs = [name for table in tables for name in table["input"].to_pylist()]
        below = (demo_run.drawings / collection).rglob("*")
        drawn = [path for path in below if path.is_file() and path.suffix != ".txt"]
        assert len(inputs) == len(set(inputs)) == counts["inputs"] == len(drawn)
        assert counts["inputs"] == counts["embedded"] + counts["duplicate"] + counts["failed"]
    pool = read_manifest(demo_run.pool).counts
    assert pool["duplicate"] > 0 and pool["failed"] > 0

    selection = read_table(demo_run.selection_table, SELECTION)
    counts = read_manifest(demo_run.selection).counts
    rules = pc.value_counts(selection["rule"]).to_pylist()
    assert sum(entry["counts"] for entry in rules) == counts["candidates"] == selection.num_rows
    chosen = selection.filter(pc.equal(selection["verdict"], "selected"))
    captions = read_parts(demo_run.captions, CAPTIONS)
    assert set(chosen["id"].to_pylist()) == set(captions["id"].to_pylist())
    images = read_parts(demo_run.images, IMAGES)
    assert len(set(images["id"].to_pylist())) == images.num_rows


def test_the_demo_prints_a_funnel_captions_and_what_to_open(demo_run):
    printed = (demo_run.folder / "printed.txt").read_text()
    for word in (
        "embedded",
        "centroids",
        "neighbours",
        "fetched",
        "selected",
        "captioned",
        "released",
        "samples.html",
    ):
        assert word in printed
    rows = pq.read_metadata(_release(demo_run) / "dataset.parquet").num_rows
    assert re.search(rf"released\D+{rows}\b", printed)


def test_the_card_and_the_manifest_say_that_demo_models_were_used(demo_run):
    card = (_release(demo_run) / "README.md").read_text()
    assert "demo models" in card.lower()
    assert read_manifest(_release(demo_run)).facts["demo_models"] is True


def test_the_samples_page_loads_nothing_from_elsewhere_and_shows_the_captions(demo_run, chromium):
    page = chromium.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((_release(demo_run) / "samples.html").as_uri())

    assert all(url.startswith(("file:", "data:")) for url in asked)
    first = pq.read_table(_release(demo_run) / "dataset.parquet").to_pylist()[0]["caption"]
    if len(pq.read_table(_release(demo_run) / "dataset.parquet")) <= 100:
        assert " ".join(first.split())[:40] in " ".join(page.inner_text("body").split())
    assert page.locator("img").count() > 10
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.close()


def test_the_captions_report_says_how_much_of_what_was_drawn_they_have_right(demo_run):
    lines = (demo_run.drawings / "truth.jsonl").read_text().splitlines()
    drawn = {str(demo_run.drawings / row["path"]): row["caption"] for row in map(json.loads, lines)}
    images = read_parts(demo_run.images, IMAGES, ["id", "image_path"]).to_pylist()
    places = {row["id"]: row["image_path"] for row in images}
    selection = read_table(demo_run.selection_table, SELECTION)
    chosen = set(selection.filter(pc.equal(selection["verdict"], "selected"))["id"].to_pylist())
    rows = read_parts(demo_run.captions, CAPTIONS, ["id", "raw_caption", "language"]).to_pylist()
    rows = [row for row in rows if row["id"] in chosen]

    def share(pattern):
        def said(text):
            return re.findall(pattern, text)

        return np.mean([said(row["raw_caption"]) == said(drawn[places[row["id"]]]) for row in rows])

    found = read_manifest(demo_run.captions).facts["figures"]["truth"]
    assert found["background"] == round(share(r"background is \w+ (\w+)"), 4)
    assert found["light"] == round(share(r"(?i)light (falls from the \w+|is even)"), 4)
    assert found["style"] == round(share(r"style is (\w+)"), 4)
    assert found["whole caption exact"] == round(
        np.mean([row["raw_caption"].strip() == drawn[places[row["id"]]] for row in rows]), 4
    )
    assert (
        f"background<td class='n'>{100 * found['background']:.1f} %" in demo_run.captions_report.read_text()
    )
    assert {row["language"] for row in rows} == {"en"}


def test_the_captions_report_fits_a_phone_and_is_dark_where_that_is_wished_for(demo_run, chromium):
    page = chromium.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(demo_run.captions_report.as_uri())

    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
    page.close()


def test_the_report_tells_the_release_from_a_random_sample_of_the_pool(demo_run):
    report = json.loads((_release(demo_run) / "report.json").read_text())
    release, by_chance = (report["sets"][name] for name in ("release", "random sample of the pool"))

    assert release["pictures"] == by_chance["pictures"] >= 20
    assert release["frechet"] < by_chance["frechet"]
    assert release["similarity"] > by_chance["similarity"]
    assert release["coverage"] >= by_chance["coverage"]


def test_a_second_demo_and_a_second_run_do_nothing_and_say_so(demo_run, popfactory):
    before = {path: path.stat().st_mtime_ns for path in demo_run.folder.rglob("manifest.json")}
    again = popfactory("run", demo_run.folder)
    assert again.returncode == 0 and "nothing to do" in again.stdout, again.stderr
    demo = popfactory("demo", demo_run.folder, "--concepts", 60, "--pool", 240)
    assert demo.returncode == 0, demo.stderr
    assert {path: path.stat().st_mtime_ns for path in demo_run.folder.rglob("manifest.json")} == before


def test_status_and_verify_agree_with_the_manifests(demo_run, popfactory):
    status = json.loads(popfactory("status", demo_run.folder, "--json").stdout)
    assert status["stages"]["selection"]["counts"] == read_manifest(demo_run.selection).counts
    assert status["jobs"][0]["state"] in ("done", "running")
    verified = popfactory("verify", demo_run.folder)
    assert verified.returncode == 0 and "as published" in verified.stdout
    assert verify(_release(demo_run)) == []


def test_a_flipped_bit_in_any_published_file_of_a_run_is_named(demo_run, popfactory, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(demo_run.folder, run.folder)
    assert popfactory("score", run.folder, "--pool").returncode == 0
    generator, flipped = np.random.default_rng(0), set()
    for manifest in run.folder.rglob("manifest.json"):
        for record in read_manifest(manifest.parent).files:
            path = manifest.parent / record.path
            content = bytearray(path.read_bytes())
            content[generator.integers(len(content))] ^= 1 << generator.integers(8)
            path.write_bytes(content)
            flipped.add(str(path))
    parts = (
        "concepts",
        "pool",
        "pool-scores",
        "index",
        "centroids",
        "neighbours",
        "scores",
        "captions",
        "release",
    )
    assert all(any(f"/{part}/" in path for path in flipped) for part in parts)

    told = popfactory("verify", run.folder)

    assert told.returncode == 1
    named = {line.split(": ", 1)[0] for line in told.stderr.splitlines() if line.endswith("was published")}
    assert named == flipped


def test_why_tells_a_rows_story(demo_run, popfactory):
    row = pq.read_table(_release(demo_run) / "dataset.parquet").to_pylist()[0]
    told = popfactory("why", demo_run.folder, row["id"])
    assert told.returncode == 0, told.stderr
    for part in (
        row["image_path"],
        "selected",
        str(row["centroid_id"]),
        " ".join(row["caption"].split())[:30],
    ):
        assert part in " ".join(told.stdout.split())
    unknown = popfactory("why", demo_run.folder, 12345)
    assert unknown.returncode == 1 and "12345" in unknown.stderr


def test_a_folder_with_another_run_is_not_written_over(demo_run, popfactory):
    before = demo_run.config.read_bytes()
    refused = popfactory("demo", demo_run.folder, "--concepts", 120, "--pool", 50)
    assert refused.returncode == 1 and "another" in refused.stderr
    assert demo_run.config.read_bytes() == before


def test_in_two_steps_the_whole_pipeline_ends_with_the_same_selection_and_then_has_nothing_to_do(
    demo_run, popfactory, tmp_path
):
    run = Run(tmp_path / "run")
    shutil.copytree(demo_run.folder, run.folder)
    config = load_config(run.config)
    write_config(run.config, replace(config, fetch=replace(config.fetch, mode=TWO_STEP)))

    done = popfactory("run", run.folder)

    assert done.returncode == 0, done.stderr
    selection = read_table(run.selection_table, SELECTION)
    assert selection.equals(read_table(demo_run.selection_table, SELECTION))
    chosen = selection.filter(pc.equal(selection["verdict"], "selected"))["id"].to_numpy()
    assert read_table(run.full_size, FULL_SIZE)["id"].to_pylist() == np.unique(chosen).tolist()
    assert all(verify(folder) == [] for folder in (run.images, run.scores, run.selection))
    before = read_manifest(run.selection)
    assert popfactory("run", run.folder).returncode == 0
    assert read_manifest(run.selection) == before
