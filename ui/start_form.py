"""What pages may start: the commands, and the options of each that a page may add."""

from dataclasses import dataclass

from spine.errors import DataError

_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Option:
    """One option, in the words of the command's own --help."""

    name: str
    meaning: str
    least: int | None = None
    """Of the whole number that stands behind it; None for a switch."""


_FORCE = Option("--force", "Start over.")

MEANINGS = {
    "run": "Every stage that is not up to date, in order, to the release",
    "centroids": "Cluster the concepts' embeddings into centroids",
    "index": "Build the index over the pool's embeddings",
    "retrieve": "Find the neighbours of every centroid",
    "fetch": "Bring in their pictures",
    "links": "Ask the addresses of downloads again: alive, changed or gone",
    "score": "Score what was brought in, and group near-duplicates",
    "select": "Decide on every candidate: filters, people, duplicates, quota",
    "caption": "Describe the selected pictures",
    "release": "Publish the dataset with its card",
}
"""Commands, always on the board's own run."""

OPTIONS: dict[str, tuple[Option, ...]] = {
    "run": (),
    "centroids": (_FORCE,),
    "index": (_FORCE,),
    "retrieve": (_FORCE,),
    "fetch": (
        Option("--retry-failed", "Ask again what gave nothing but may another time."),
        Option("--full-size", "With two-step fetch: the full size of what is selected."),
        _FORCE,
    ),
    "links": (),
    "score": (
        Option("--pool", "Score all of the pool's embeddings, before anything is fetched."),
        _FORCE,
    ),
    "select": (_FORCE,),
    "caption": (
        Option("--failed-only", "Ask again for the pictures that failed, and for no others."),
        Option(
            "--kept-in", "Of the selected pictures those alone that people keep in this centroid.", least=0
        ),
        Option("--limit", "So many pictures at most, then stop.", least=1),
        Option("--force", "Throw this captioner's captions away and start over."),
    ),
    "release": (Option("--force", "Make the newest revision anew, in its place."),),
}


def words_of(typed: str) -> tuple[str, ...]:
    """A command as a page sends it, in words: "caption --limit 20".

    Raises:
        DataError: It is none that a page may start, or has an option that it may not add.
    """
    name, *rest = typed.split(" ")
    if name not in MEANINGS:
        raise DataError(f"{typed[:80]!r} can't be started here; there are: {', '.join(MEANINGS)}")
    known = {option.name: option for option in OPTIONS[name]}
    words, given = iter(rest), set[str]()
    for word in words:
        option = known.get(word)
        if option is None or word in given:
            there = ", ".join(known) or "none"
            raise DataError(f"{typed[:80]!r} can't be started here; options of {name}: {there}")
        given.add(word)
        if option.least is not None and not _is_number(next(words, ""), option.least):
            raise DataError(
                f"{typed[:80]!r} can't be started here; {word} takes a whole number from {option.least}"
            )
    return (name, *rest)


def _is_number(word: str, least: int) -> bool:
    is_whole = word.isascii() and word.isdecimal() and len(word) <= _MOST_DIGITS
    return is_whole and int(word) >= least
