import pyarrow as pa
import pytest

from captioner import captions as stage
from captioner.captions import caption
from captioner.cost import COLUMNS, Spent, spent_on, told
from captioner.estimate import estimate, estimate_lines
from captioner.previews import preview
from spine.jobs import Journal, list_jobs
from spine.settings import CaptionConfig
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS


def test_a_content_counts_once_and_a_row_without_tokens_not_at_all():
    rows = pa.table(
        {
            "caption_id": ["a", "a", "b", "c"],
            "tokens": [100, 100, 50, None],
            "prompt_tokens": [800, 800, None, None],
            "captioner": ["w"] * 4,
        }
    ).cast(COLUMNS)

    assert spent_on(rows) == Spent(captions=2, tokens=150, prompt_tokens=800)


def test_cost_is_tokens_times_prices():
    spent = Spent(1000, 110_000, 850_000)

    assert spent.cost(CaptionConfig()) is None
    assert spent.cost(CaptionConfig(price_prompt=0.2, price_caption=1.5)) == pytest.approx(0.17 + 0.165)
    assert spent.cost(CaptionConfig(price_caption=1.5), times=600) == pytest.approx(99)
    assert (
        told(spent, 0.335) == "110,000 tokens of captions, 850,000 of pictures and prompts, which cost 0.34"
    )


def test_the_journal_and_the_manifest_say_what_was_spent(make_run, pictures, monkeypatch):
    monkeypatch.setattr(stage, "SAY_EVERY_S", 0.0)
    run = make_run(pictures, price_caption=1e6)
    journal = Journal(run, ["caption", str(run.folder)])

    manifest = caption(run, progress=journal)
    journal.close("done")

    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    tokens, asked = (sum(row[name] for row in rows) for name in ("tokens", "prompt_tokens"))
    assert (manifest.facts["tokens"], manifest.facts["prompt_tokens"]) == (tokens, asked)
    assert manifest.facts["cost"] == tokens > 0
    said = [line for line in list_jobs(run)[0].lines if line.startswith("so far ")]
    assert said[-1] == f"so far {told(Spent(7, tokens, asked), float(tokens))}"
    assert len(said) == 4, "with every batch, though all four are one part"


def test_a_dry_run_tells_the_cost_from_a_preview_before_the_first_run(make_run, pictures):
    run = make_run(pictures, price_caption=1e6)
    assert estimate(run).cost is None
    shown = preview(run, 3, prompts=["short", "laion-pop"])
    part = run.folder / shown.facts["folder"] / shown.facts["captioners"][1]["part"]
    rows = read_table(part, CAPTIONS).to_pylist()

    found = estimate(run)

    mean = sum(row["tokens"] for row in rows) / 3
    assert found.tokens == found.cost == pytest.approx(7 * mean, abs=0.5)
    assert any("which cost" in line for line in estimate_lines(found))
