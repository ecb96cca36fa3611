"""What a robots.txt allows.

The longest matching rule of the groups that name us counts, else of the groups for everybody; of two
equally long ones the one that allows. `*` in a rule stands for any text, `$` at its end for the end.
Python's own parser knows neither, and takes the first rule that matches.

Source: Koster et al., "Robots Exclusion Protocol", RFC 9309, 2022.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

MAX_BYTES = 1_000_000
"""A longer robots.txt isn't read; the standard asks for half of it at least."""

_SHOWN = 200  # characters of a rule that are told


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules that are for us."""

    rules: tuple[tuple[bool, str], ...] = ()
    """Whether it allows, and its path pattern; in the order of the file."""
    crawl_delay_s: float = 0.0
    """Seconds between two requests, as many hosts ask for though the standard doesn't know it."""

    def forbids(self, url: str) -> str | None:
        """The rule that keeps us from an address, as it stands in the file; None where none does."""
        parts = urlsplit(url)
        target = unquote(parts.path or "/") + (f"?{unquote(parts.query)}" if parts.query else "")
        length, allowed, pattern = max(
            (
                (len(pattern), allows, pattern)
                for allows, pattern in self.rules
                if target != "/robots.txt" and _matches(pattern, target)
            ),
            default=(0, True, ""),
        )
        return None if allowed or not length else f"Disallow: {pattern[:_SHOWN]}"


def parse_robots(content: bytes, token: str) -> Robots:
    """Read a robots.txt.

    Args:
        content: Anything; what is no rule says nothing.
        token: Our own name in it.
    """
    ours: list[tuple[bool, str]] = []
    everybodys: list[tuple[bool, str]] = []
    delays = {True: 0.0, False: 0.0}  # ours, everybody's
    named = False
    agents: set[str] = set()
    in_rules = False
    for line in content.decode("utf-8-sig", errors="replace").splitlines():
        key, separator, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not separator:
            continue
        if key == "user-agent":
            if in_rules:
                agents, in_rules = set(), False
            agents.add(value.lower())
            named = named or value.lower() == token.lower()
        elif key in ("allow", "disallow"):
            in_rules = True
            if value:
                rule = (key == "allow", value)
                ours += [rule] if token.lower() in agents else []
                everybodys += [rule] if "*" in agents else []
        elif key == "crawl-delay" and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", value):
            in_rules = True
            for mine, names_us in ((True, token.lower() in agents), (False, "*" in agents)):
                if names_us:
                    delays[mine] = max(delays[mine], float(value))
    return Robots(tuple(ours if named else everybodys), delays[named])


def _matches(pattern: str, target: str) -> bool:
    """Whether a pattern matches from the beginning; each `*` takes as little as it can, so that no time is lost."""
    ends = pattern.endswith("$")
    first, *others = (unquote(part) for part in pattern.removesuffix("$").split("*"))
    if not target.startswith(first):
        return False
    at = len(first)
    for part in others[:-1] if ends else others:
        found = target.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    if not ends:
        return True
    return target.endswith(others[-1]) and len(target) - len(others[-1]) >= at if others else target == first
