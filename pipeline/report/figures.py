"""The main figures as PNGs, for MLflow's page of a run: the loss, and the map of words.

Drawn with Pillow at twice the size and halved, which smooths the lines; matplotlib would cost a second of processor time per run.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import printable
from pipeline.report.charts import Curve, short, thin, ticks
from pipeline.store import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as FixedFont

    Font = FreeTypeFont | FixedFont

FOLDER = "figures"
LOSS, MAP = "loss.png", "map.png"
WIDTH, HEIGHT, SIDE = 960, 480, 1200
_SCALE = 2
_PACKED = 2
"""zlib's level, of 9: files are a third larger than at level 9 and take a quarter of the time."""
_PAPER, _INK, _SOFT, _LINE, _ACCENT = "#ffffff", "#1d2126", "#626b76", "#e3e4df", "#1c6e73"
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 46, 40
_LABELS = 350


def write_figures(directory: Path, curves: Sequence[Curve], words: Mapping[str, Any] | None) -> list[Path]:
    """The files written into `directory`: the loss curve and the map, if there is data for them."""
    images: dict[str, Image] = {}
    if curves and len(curves[0].points) > 1:
        images[LOSS] = draw_curve(curves[0])
    if words and words.get("words"):
        images[MAP] = draw_map(words)
    for name, image in images.items():
        content = io.BytesIO()
        image.save(content, "PNG", compress_level=_PACKED)
        write_bytes(directory / name, content.getvalue())
    return [directory / name for name in images]


def draw_curve(curve: Curve) -> Image:
    """The curve with its axes; non-finite points are left out."""
    image, pen = _canvas(WIDTH, HEIGHT)
    points = thin([(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)])
    x_low, x_high = points[0][0], points[-1][0]
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points), 5)
    y_low, y_high = min(y_ticks[0], *(y for _, y in points)), max(y_ticks[-1], *(y for _, y in points))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - _TOP - _BOTTOM)
        return _SCALE * (_LEFT + across), _SCALE * (HEIGHT - _BOTTOM - up)

    _write(pen, (_LEFT, 14), f"{curve.title}: {curve.y_label.partition(' (')[0]}, over {curve.x_label}", _font(17), _INK)
    small = _font(14)
    for y in y_ticks:
        pen.line([place(x_low, y), place(x_high, y)], fill=_LINE, width=_SCALE)
        _write(pen, (_LEFT - 10, place(x_low, y)[1] / _SCALE), short(y), small, _SOFT, anchor="rm")
    for x in ticks(x_low, x_high, 6):
        if x_low <= x <= x_high:
            _write(pen, (place(x, y_low)[0] / _SCALE, HEIGHT - _BOTTOM + 18), short(x), small, _SOFT, anchor="mm")
    pen.line([place(x, y) for x, y in points], fill=_ACCENT, width=2 * _SCALE + 1, joint="curve")
    return _halved(image)


def draw_map(words: Mapping[str, Any]) -> Image:
    """A dot for every word, with the names of the most frequent ones where there is room."""
    image, pen = _canvas(SIDE, SIDE)
    taken: set[tuple[int, int]] = set()
    spots = [(40 + x / 10_000 * (SIDE - 140), 40 + y / 10_000 * (SIDE - 80)) for x, y in words["xy"]]
    for x, y in spots:
        pen.ellipse([_SCALE * (x - 2), _SCALE * (y - 2), _SCALE * (x + 2), _SCALE * (y + 2)], fill="#8fb9bb")
    shown, font = 0, _font(13)
    for word, (x, y) in zip(words["words"], spots, strict=True):
        name = printable(word, 30)
        cells = {(column, round(y / 14)) for column in range(round(x / 14), round((x + 8 * len(name)) / 14) + 1)}
        if shown < _LABELS and not cells & taken:
            taken |= cells
            shown += 1
            _write(pen, (x + 5, y), name, font, _INK, anchor="lm")
    return _halved(image)


def _canvas(width: int, height: int) -> tuple[Image, ImageDraw]:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (_SCALE * width, _SCALE * height), _PAPER)
    return image, ImageDraw.Draw(image)


def _font(size: int) -> Font:
    """Pillow's own font, which it decodes anew whenever it is asked for: longer than a word takes to draw."""
    from PIL import ImageFont

    return ImageFont.load_default(_SCALE * size)


def _write(pen: ImageDraw, place: tuple[float, float], text: str, font: Font, colour: str, anchor: str = "la") -> None:
    pen.text((_SCALE * place[0], _SCALE * place[1]), text, fill=colour, font=font, anchor=anchor)


def _halved(image: Image) -> Image:
    return image.reduce(_SCALE)
