"""The pixels of the demo's world.

Everything is measured in shares of the shorter side and placed in the square in the middle of the
picture, so that one scene drawn 900 by 1400 and 72 by 72 looks the same to a model that resizes and
crops the middle. The background alone fills the rest.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from popfactory.demo_world import BACKGROUNDS, COLOURS, Group, Scene

_COLUMNS = (0.17, 0.5, 0.83)
_ROWS = (0.245, 0.5, 0.755)
_RADIUS = {"small": 0.07, "large": 0.12}
_BAND = 0.118
_TAPE = 0.045
_GEMS = ((0.335, 0.3725), (0.665, 0.3725), (0.335, 0.6275), (0.665, 0.6275))
_TILE = 1 / 9  # pitch of the patterns
_GRAIN_CELLS = 72  # of grain on the shorter side
_BLUR = 0.017
_SMOOTH_SIDE_PX = 288  # below this, draw larger and shrink
_Box = tuple[float, float, float, float]


class _Square:
    """The middle square of a canvas: turns shares of its side into pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.side = min(width, height)
        self.left, self.top = (width - self.side) / 2, (height - self.side) / 2

    def x(self, share: float) -> float:
        return self.left + share * self.side

    def y(self, share: float) -> float:
        return self.top + share * self.side

    def box(self, x: float, y: float, radius: float) -> _Box:
        return (self.x(x - radius), self.y(y - radius), self.x(x + radius), self.y(y + radius))


def draw(scene: Scene, width: int, height: int) -> Image.Image:
    """Draw a scene.

    Args:
        scene: What to draw.
        width: In pixels, 16 or more.
        height: In pixels, 16 or more. A picture of 900 by 900 takes about 11 ms.

    Returns:
        An RGB picture; the same for the same scene and size.
    """
    factor = math.ceil(_SMOOTH_SIDE_PX / min(width, height)) if min(width, height) < _SMOOTH_SIDE_PX else 1
    square = _Square(width * factor, height * factor)
    image = Image.new("RGB", (square.width, square.height), BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(image)
    _draw_pattern(pen, square, scene)
    _draw_gems(pen, square, scene.beauty)
    jitter = np.random.default_rng(scene.seed).uniform(-0.008, 0.008, (9, 2))
    for group in scene.groups:
        _draw_group(pen, square, group, outlined=scene.style == "outlined", jitter=jitter)
    if scene.word:
        _draw_word(pen, square, scene)
    if factor > 1:
        image = image.reduce(factor)
        square = _Square(width, height)
    image = _apply_light(image, square, scene.light)
    image = _apply_style(image, square, scene)
    return _apply_marks(image, square, scene)


def _draw_pattern(pen: ImageDraw.ImageDraw, square: _Square, scene: Scene) -> None:
    if scene.pattern == "plain":
        return
    ground = BACKGROUNDS[scene.background]
    light = sum(ground) > 330
    tone = tuple(int(c * 0.76) if light else int(c + (255 - c) * 0.3) for c in ground)
    pitch = _TILE * square.side
    # Tiles count from the middle square's corner, so that the middle looks the same in every format.
    columns = range(-math.ceil(square.left / pitch), math.ceil((square.width - square.left) / pitch))
    rows = range(-math.ceil(square.top / pitch), math.ceil((square.height - square.top) / pitch))
    if scene.pattern == "striped":
        for row in rows:
            y = square.top + row * pitch
            pen.rectangle((0, y, square.width, y + pitch / 2), fill=tone)
        return
    for row in rows:
        for column in columns:
            x, y = square.left + column * pitch, square.top + row * pitch
            if scene.pattern == "dotted":
                pen.ellipse(
                    (x + pitch * 0.25, y + pitch * 0.25, x + pitch * 0.75, y + pitch * 0.75), fill=tone
                )
            elif (row + column) % 2 == 0:
                pen.rectangle((x, y, x + pitch, y + pitch), fill=tone)


def _draw_gems(pen: ImageDraw.ImageDraw, square: _Square, beauty: float) -> None:
    dull, golden = np.array((120, 115, 110)), np.array((255, 205, 40))
    colour = tuple(int(c) for c in dull + (golden - dull) * beauty)
    for radius, fill in ((0.03 + 0.035 * beauty, (25, 20, 15)), (0.018 + 0.035 * beauty, colour)):
        for x, y in _GEMS:
            points = ((x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius))
            pen.polygon([(square.x(px), square.y(py)) for px, py in points], fill=fill)


def _draw_group(
    pen: ImageDraw.ImageDraw, square: _Square, group: Group, *, outlined: bool, jitter: np.ndarray
) -> None:
    fill = COLOURS[group.kind.colour]
    radius = _RADIUS[group.kind.size]
    line = (235, 235, 235) if group.kind.colour == "black" else (15, 15, 15)
    for cell in group.cells:
        x, y = _COLUMNS[cell % 3] + jitter[cell, 0], _ROWS[cell // 3] + jitter[cell, 1]
        if outlined:
            _draw_shape(pen, square, group.kind.shape, x, y, radius, line, grow=0.009)
            _draw_shape(pen, square, group.kind.shape, x, y, radius, fill, grow=-0.009)
        else:
            _draw_shape(pen, square, group.kind.shape, x, y, radius, fill, grow=0.0)


def _draw_shape(
    pen: ImageDraw.ImageDraw,
    square: _Square,
    shape: str,
    x: float,
    y: float,
    radius: float,
    fill: tuple[int, int, int],
    *,
    grow: float,
) -> None:
    outer = radius + grow
    if shape == "circle":
        pen.ellipse(square.box(x, y, outer), fill=fill)
    elif shape == "ring":
        thickness = max(1, round((radius * 0.36 + 2 * grow) * square.side))
        pen.ellipse(square.box(x, y, outer), outline=fill, width=thickness)
    elif shape == "cross":
        arm = radius * 0.34 + grow
        pen.rectangle(
            (square.x(x - outer), square.y(y - arm), square.x(x + outer), square.y(y + arm)), fill=fill
        )
        pen.rectangle(
            (square.x(x - arm), square.y(y - outer), square.x(x + arm), square.y(y + outer)), fill=fill
        )
    elif shape == "square":
        pen.rectangle(square.box(x, y, radius * 0.86 + grow), fill=fill)
    else:
        # Offsetting a polygon's sides by g moves its points by more; 1.8 and 1.5 fit these two.
        points = _star(radius + 1.8 * grow) if shape == "star" else _triangle(radius + 1.5 * grow)
        pen.polygon([(square.x(x + px), square.y(y + py)) for px, py in points], fill=fill)


def _star(radius: float) -> list[tuple[float, float]]:
    turns = [(k * math.pi / 5 - math.pi / 2, radius * (1.08 if k % 2 == 0 else 0.45)) for k in range(10)]
    return [(r * math.cos(turn), r * math.sin(turn) + 0.06 * radius) for turn, r in turns]


def _triangle(radius: float) -> list[tuple[float, float]]:
    return [(-radius, radius * 0.85), (radius, radius * 0.85), (0.0, -radius * 0.95)]


def _draw_word(pen: ImageDraw.ImageDraw, square: _Square, scene: Scene) -> None:
    paper, ink = ((0, 0, 0), (255, 255, 255)) if scene.dark_band else ((255, 255, 255), (0, 0, 0))
    top = square.y(0.0 if scene.band == "top" else 1 - _BAND)
    pen.rectangle((0, top, square.width, top + _BAND * square.side), fill=paper)
    middle = (square.x(0.5), top + _BAND / 2 * square.side)
    pen.text(middle, str(scene.word), fill=ink, font=_font(max(4, round(0.115 * square.side))), anchor="mm")


@functools.lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _apply_light(image: Image.Image, square: _Square, light: str) -> Image.Image:
    if light == "even":
        return image
    level = np.linspace(255, 92, 256)
    ramp = Image.fromarray((level if light in ("left", "top") else level[::-1]).astype(np.uint8)[None, :])
    along = square.left if light in ("left", "right") else square.top
    length = square.width if light in ("left", "right") else square.height
    # The fall spans the middle square; beyond it the light keeps its value at the edge.
    row = np.full(length, 0, dtype=np.uint8)
    start, side = round(along), square.side
    row[start : start + side] = np.asarray(ramp.resize((side, 1), Image.Resampling.BILINEAR))[0]
    row[:start], row[start + side :] = row[start], row[start + side - 1]
    strip = Image.fromarray(row[None, :] if light in ("left", "right") else row[:, None])
    shade = strip.resize(image.size, Image.Resampling.NEAREST)
    return ImageChops.multiply(image, Image.merge("RGB", (shade, shade, shade)))


def _apply_style(image: Image.Image, square: _Square, scene: Scene) -> Image.Image:
    if scene.style == "grainy":
        noise = np.random.default_rng(scene.seed + 1).normal(128, 30, (_GRAIN_CELLS, _GRAIN_CELLS))
        tile = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize(
            (square.side,) * 2, Image.Resampling.NEAREST
        )
        grain = Image.new("L", image.size)
        for x in range(round(square.left) - square.side, square.width, square.side):
            for y in range(round(square.top) - square.side, square.height, square.side):
                grain.paste(tile, (x, y))
        return ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), 1, -128)
    if scene.style == "blurred":
        # A wide blur of a large picture costs far more than the same blur of a smaller one.
        shrink = max(1, square.side // 144)
        small = image.reduce(shrink) if shrink > 1 else image
        small = small.filter(ImageFilter.GaussianBlur(_BLUR * min(small.size)))
        return small.resize(image.size, Image.Resampling.BILINEAR) if shrink > 1 else small
    return image


def _apply_marks(image: Image.Image, square: _Square, scene: Scene) -> Image.Image:
    if scene.unsafe:
        tape = _tape(square.side)
        image.paste(tape, (round(square.x(0.0)), round(square.y(0.0))))
        image.paste(tape, (round(square.x(1.0)) - tape.width, round(square.y(0.0))))
    if scene.watermark:
        veil = _veil(square.side)
        white = Image.new("RGB", veil.size, (255, 255, 255))
        image.paste(white, (round(square.left), round(square.top)), veil)
    return image


@functools.lru_cache(maxsize=8)
def _tape(side: int) -> Image.Image:
    factor = max(1, math.ceil(_SMOOTH_SIDE_PX / side))
    width, height = max(1, round(_TAPE * side)), side
    tape = Image.new("RGB", (width * factor, height * factor), (250, 210, 0))
    pen = ImageDraw.Draw(tape)
    w, step = width * factor, 0.11 * side * factor
    for k in range(-1, 11):
        y = k * step
        pen.polygon([(0, y + w), (w, y), (w, y + step / 2), (0, y + w + step / 2)], fill=(10, 10, 10))
    return tape.reduce(factor) if factor > 1 else tape


@functools.lru_cache(maxsize=8)
def _veil(side: int) -> Image.Image:
    factor = max(1, math.ceil(_SMOOTH_SIDE_PX / side))
    span = side * factor
    veil = Image.new("L", (span, span), 0)
    pen = ImageDraw.Draw(veil)
    width = max(1, round(0.02 * span))
    pen.line((0, 0, span, span), fill=150, width=width)
    pen.line((0, span, span, 0), fill=150, width=width)
    pen.text((span / 2, span / 2), "SAMPLE", fill=170, font=_font(round(0.1 * span)), anchor="mm")
    return veil.reduce(factor) if factor > 1 else veil
