"""What a captioning run would do, and how long it would take, without asking anything."""

from collections.abc import Collection
from dataclasses import dataclass

from captioner.asked import Asked
from captioner.cost import Spent, spent_in, told
from captioner.shelves import parts_of
from captioner.worklist import narrowed, read_units
from spine.jobs import past_stages
from spine.run import Run
from spine.table_files import read_table
from spine.tables import CAPTIONS


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What `caption` would find and do with the same arguments."""

    captioner: str
    """Id over model, prompt and parameters."""
    model: str
    prompt_id: str
    selected: int
    """Pictures."""
    contents: int
    """Of different bytes: each is asked once."""
    captioned: int
    """Contents that this captioner has described."""
    failed: int
    """Contents that it failed on."""
    to_ask: int
    """Contents that would be asked now."""
    rate: float | None
    """Pictures a second, as this captioner's last job in this run reached; None where it had none."""
    tokens: int | None
    """Of the captions that would be asked for, at the mean of those there are, in a preview if nowhere else; None
    where there are none."""
    prompt_tokens: int | None
    """Of pictures and prompts, likewise."""
    cost: float | None
    """Of the two at the prices of [caption]; None where there are none."""

    @property
    def seconds(self) -> float | None:
        """How long it would take at that rate, without loading the model."""
        return self.to_ask / self.rate if self.rate else None


def estimate(
    run: Run,
    *,
    ids: Collection[int] | None = None,
    limit: int | None = None,
    failed_only: bool = False,
    force: bool = False,
) -> Estimate:
    """Count what `captioner.captions.caption` would do with these arguments; nothing is written or asked.

    Raises:
        ConfigError, DataError, ModelError: As `caption` before any work.
    """
    who = Asked.of(run)
    units = read_units(run, who.captioner)
    asked = narrowed(units, ids)
    schema = CAPTIONS.empty_table().select(["caption_id", "status"]).schema
    status: dict[str, str] = {}
    for path in parts_of(run, who.captioner):
        rows = read_table(path, schema)
        status.update(zip(rows["caption_id"].to_pylist(), rows["status"].to_pylist(), strict=True))
    wanted = [
        unit
        for unit in asked
        if force
        or (status.get(unit.caption_id) == "failed" if failed_only else unit.caption_id not in status)
    ]
    wanted = wanted[:limit]
    spent = _known_spending(run, who.captioner)
    times = len(wanted) / spent.captions if spent.captions else None
    found = [status[unit.caption_id] for unit in units if unit.caption_id in status]
    return Estimate(
        captioner=who.captioner,
        model=who.setup.name,
        prompt_id=who.prompt.prompt_id,
        selected=sum(len(unit.ids) for unit in units),
        contents=len(units),
        captioned=found.count("captioned"),
        failed=found.count("failed"),
        to_ask=len(wanted),
        rate=_rate(run, who.captioner),
        tokens=None if times is None else round(times * spent.tokens),
        prompt_tokens=None if times is None else round(times * spent.prompt_tokens),
        cost=None if times is None else spent.cost(who.config, times),
    )


def _known_spending(run: Run, captioner: str) -> Spent:
    """What this captioner's captions took, those of previews if there are no others."""
    spent = spent_in(parts_of(run, captioner), captioner)
    return spent if spent.captions else spent_in(run.caption_previews.glob("*/part-*.parquet"), captioner)


def _rate(run: Run, captioner: str) -> float | None:
    """The rate of the last job in which this captioner worked; it says its id when it begins."""
    rates = [
        job.rate
        for job in past_stages(run, "caption")
        if job.rate is not None and any(line.startswith(f"captioner {captioner}:") for line in job.lines)
    ]
    return rates[-1] if rates else None


def estimate_lines(found: Estimate) -> list[str]:
    """The estimate for a terminal."""
    known = f"{found.captioned:,} captioned, {found.failed:,} failed"
    lines = [
        f"captioner {found.captioner}: {found.model}, prompt {found.prompt_id}",
        f"{found.selected:,} pictures selected, {found.contents:,} of different content: {known}",
        f"{found.to_ask:,} would be asked",
    ]
    if found.tokens is not None and found.prompt_tokens is not None:
        lines.append(f"that takes about {told(Spent(0, found.tokens, found.prompt_tokens), found.cost)}")
    if found.rate is None or found.seconds is None:
        return [*lines, "how long it takes isn't known: this captioner has no finished job in this run"]
    minutes, seconds = divmod(round(found.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    at = f"at {found.rate:.1f} pictures a second, as its last job here"
    return [*lines, f"that takes about {hours}:{minutes:02}:{seconds:02} {at}"]
