"""The little world of the embedded demo: what its pictures show and how they are described.

A scene is one to three groups of like objects on a 3 by 3 grid, on a patterned background, under
some light, in some style, with or without a word in a band, plus three marks that stand for what
scorer heads look for: a watermark, hazard tape for "unsafe", and gems for beauty. The demo models
are trained on this world, so on it, and on it alone, they are good. Pixels: `demo_drawing`.
"""

import re
from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (246, 130, 30),
    "yellow": (250, 220, 50),
    "green": (40, 160, 70),
    "cyan": (50, 205, 220),
    "blue": (45, 85, 225),
    "purple": (130, 50, 180),
    "pink": (250, 130, 190),
    "brown": (125, 75, 35),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
}
"""Colours of objects, RGB 0 to 255."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "navy": (20, 30, 85),
    "cream": (245, 235, 205),
    "gray": (135, 135, 135),
    "mint": (160, 228, 195),
    "lavender": (195, 180, 238),
    "maroon": (105, 20, 42),
    "olive": (120, 125, 50),
    "sky": (140, 195, 242),
}
"""Colours of backgrounds, RGB 0 to 255."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("small", "large")
PATTERNS = ("plain", "striped", "checkered", "dotted")
LIGHTS = ("even", "left", "right", "top", "bottom")
STYLES = ("flat", "outlined", "grainy", "blurred")
BANDS = ("top", "bottom")
WORDS = (
    "GO",
    "TEA",
    "JAZZ",
    "OPEN",
    "HELLO",
    "PIXEL",
    "MARKET",
    "SUMMER",
    "WELCOME",
    "MIDNIGHT",
    "ADVENTURE",
    "EXHIBITION",
)
PLACES = (
    "top left",
    "top center",
    "top right",
    "middle left",
    "center",
    "middle right",
    "bottom left",
    "bottom center",
    "bottom right",
)
"""The nine cells of the grid, in reading order."""

_COUNTS = ("one", "two", "three", "four")
_PREFIX = "This image showcases "
_NEAREST_COLOURS = 100.0  # RGB distance under which an object is lost on its background


@dataclass(frozen=True, slots=True)
class Kind:
    """What the objects of one group look like."""

    colour: str
    """A key of COLOURS."""

    shape: str
    """One of SHAPES."""

    size: str
    """One of SIZES."""


@dataclass(frozen=True, slots=True)
class Group:
    """One to four like objects."""

    kind: Kind
    cells: tuple[int, ...]
    """Where they are, rising indices into PLACES."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """All that a full caption says of a scene."""

    groups: tuple[Group, ...]
    """One to three, no two of one kind, in reading order of their first cell."""

    background: str
    pattern: str
    light: str
    """"even", or the side the light falls from."""

    style: str
    word: str | None = None
    """The word written in the band, None where there is no band."""

    band: str | None = None
    """Where the band is, None where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene(Attributes):
    """A picture before it is drawn: what the caption says, and what it does not."""

    dark_band: bool = True
    """White word on black, or black on white."""

    watermark: bool = False
    """A pale diagonal cross over the picture, with the word SAMPLE in its middle."""

    unsafe: bool = False
    """Hazard tape down both sides. It stands for what a curator must not show unasked."""

    beauty: float = 0.5
    """0 to 1: four gems between the cells, from small, dull and gray to large and golden."""

    seed: int = 0
    """Grain and the last percent of every object's place."""


def allowed_colours(background: str) -> tuple[str, ...]:
    """The colours that can be told from a background, in the order of COLOURS."""
    ground = np.array(BACKGROUNDS[background], dtype=float)
    return tuple(name for name, rgb in COLOURS.items() if np.linalg.norm(ground - rgb) >= _NEAREST_COLOURS)


def random_scene(
    rng: np.random.Generator,
    *,
    lead: Kind | None = None,
    background: str | None = None,
    pattern: str | None = None,
    light: str | None = None,
    style: str | None = None,
    p_word: float = 0.5,
    p_watermark: float = 0.1,
    p_unsafe: float = 0.05,
    beauty: tuple[float, float] = (0.0, 1.0),
) -> Scene:
    """Draw a scene at random; whatever is given is fixed.

    Args:
        rng: The only source of chance.
        lead: Kind of one of the groups; its colour must be among `allowed_colours(background)`.
        background: A key of BACKGROUNDS.
        pattern: One of PATTERNS.
        light: One of LIGHTS.
        style: One of STYLES.
        p_word: Probability of a word in a band.
        p_watermark: Probability of a watermark.
        p_unsafe: Probability of hazard tape.
        beauty: Lowest and highest beauty, 0 to 1; even in between.
    """
    ground = background or _pick(rng, tuple(BACKGROUNDS))
    has_word = rng.random() < p_word
    return Scene(
        groups=_random_groups(rng, allowed_colours(ground), lead),
        background=ground,
        pattern=pattern or _pick(rng, PATTERNS),
        light=light or _pick(rng, LIGHTS),
        style=style or _pick(rng, STYLES),
        word=_pick(rng, WORDS) if has_word else None,
        band=_pick(rng, BANDS) if has_word else None,
        dark_band=bool(rng.random() < 0.5),
        watermark=bool(rng.random() < p_watermark),
        unsafe=bool(rng.random() < p_unsafe),
        beauty=round(float(rng.uniform(*beauty)), 3),
        seed=int(rng.integers(2**31)),
    )


def attributes(scene: Scene) -> Attributes:
    """What a perfect caption of the scene would be parsed to."""
    return Attributes(**{name: getattr(scene, name) for name in Attributes.__dataclass_fields__})


def caption(scene: Attributes) -> str:
    """The full caption: two paragraphs, about 50 words at most, a function of the attributes alone."""
    places = [_listed([PLACES[cell] for cell in group.cells]) for group in scene.groups]
    groups = "; ".join(
        f"{_counted(group)} at the {at}" for group, at in zip(scene.groups, places, strict=True)
    )
    light = "The light is even." if scene.light == "even" else f"Light falls from the {scene.light}."
    word = f" The word {scene.word} is written at the {scene.band}." if scene.word else ""
    return (
        f"{_PREFIX}{groups}.\n\n"
        f"The background is {scene.pattern} {scene.background}. {light}{word} The style is {scene.style}."
    )


def short_caption(scene: Attributes) -> str:
    """One sentence: the groups and the background, without places, light, word or style."""
    groups = _listed([_counted(group) for group in scene.groups])
    return f"{_PREFIX}{groups} on a {scene.pattern} {scene.background} background."


def alt_text(scene: Attributes, rng: np.random.Generator) -> str:
    """A text as the web gives it: short, partial, sometimes of no use."""
    group = scene.groups[int(rng.integers(len(scene.groups)))]
    noun = group.kind.shape if len(group.cells) == 1 else _plural(group.kind.shape)
    forms = (
        f"{group.kind.colour} {noun}",
        f"{group.kind.colour} {noun} on {scene.background}",
        f"{group.kind.size} {group.kind.colour} {noun}, {scene.pattern} background",
        f"{scene.pattern} {scene.background} background with {noun}",
        f"{noun} {scene.style} picture",
        _listed([f"{g.kind.colour} {g.kind.shape}" for g in scene.groups]),
        f"{scene.word.title()} poster" if scene.word else f"{noun} wallpaper",
        f"IMG_{int(rng.integers(10_000)):04d}.JPG",
    )
    return forms[int(rng.integers(len(forms)))]


_CAPTION = re.compile(
    rf"{_PREFIX}(?P<groups>[^.]+)\.\s+"
    rf"The background is (?P<pattern>{'|'.join(PATTERNS)}) (?P<background>{'|'.join(BACKGROUNDS)})\. "
    rf"(?:The light is (?P<even>even)\.|Light falls from the (?P<light>{'|'.join(LIGHTS[1:])})\.)"
    rf"(?: The word (?P<word>{'|'.join(WORDS)}) is written at the (?P<band>{'|'.join(BANDS)})\.)?"
    rf" The style is (?P<style>{'|'.join(STYLES)})\."
)
_GROUP = re.compile(
    rf"(?:{'|'.join(_COUNTS)}) (?P<size>{'|'.join(SIZES)}) (?P<colour>{'|'.join(COLOURS)}) "
    rf"(?P<shape>{'|'.join(SHAPES)})(?:e?s)? at the (?P<cells>.+)"
)


def parse_caption(text: str) -> Attributes | None:
    """Read a full caption back.

    Args:
        text: A caption, of `caption` or of a model; space around it is ignored.

    Returns:
        What it says, groups in the order named, or None where it is not a caption of this world.
        The number word is not checked against the places that follow: the places count.
    """
    found = _CAPTION.fullmatch(text.strip())
    if found is None:
        return None
    groups = []
    for part in found["groups"].split("; "):
        group = _GROUP.fullmatch(part)
        places = re.split(r", | and ", group["cells"]) if group else []
        if group is None or not set(places) <= set(PLACES):
            return None
        kind = Kind(group["colour"], group["shape"], group["size"])
        groups.append(Group(kind, tuple(sorted({PLACES.index(place) for place in places}))))
    return Attributes(
        groups=tuple(groups),
        background=found["background"],
        pattern=found["pattern"],
        light=found["even"] or found["light"],
        style=found["style"],
        word=found["word"],
        band=found["band"],
    )


def _random_groups(
    rng: np.random.Generator, colours: tuple[str, ...], lead: Kind | None
) -> tuple[Group, ...]:
    free = list(rng.permutation(len(PLACES)))
    kinds: list[Kind] = []
    groups: list[Group] = []
    for _ in range(int(rng.integers(1, 4))):
        kind = Kind(_pick(rng, colours), _pick(rng, SHAPES), _pick(rng, SIZES))
        if not groups and lead is not None:
            kind = lead
        count = min(int(rng.choice((1, 1, 1, 2, 2, 3, 4))), len(free))
        if kind in kinds or count == 0:
            continue
        kinds.append(kind)
        groups.append(Group(kind, tuple(sorted(int(free.pop()) for _ in range(count)))))
    return tuple(sorted(groups, key=lambda group: group.cells))


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _plural(shape: str) -> str:
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def _counted(group: Group) -> str:
    count = len(group.cells)
    noun = group.kind.shape if count == 1 else _plural(group.kind.shape)
    return f"{_COUNTS[count - 1]} {group.kind.size} {group.kind.colour} {noun}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
