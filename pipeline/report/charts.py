"""Line charts as inline SVG: no script, no style attributes, readable on a phone and in dark mode.

Colours come from the page's style sheet by class; every position is an attribute, so that the page's content security policy
can forbid everything else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDE, NARROW = (720, 240), (420, 190)
"""(width, height) of a chart across the page, and of one of two side by side, roughly in pixels."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 24
MAX_POINTS = 500


@dataclass(frozen=True)
class Curve:
    """A line chart: `points` are (x, y) with non-decreasing x; `divisions` are x positions to mark, such as ends of epochs."""

    title: str
    points: Sequence[tuple[float, float]]
    x_label: str
    y_label: str
    divisions: Sequence[float] = ()
    levels: Sequence[tuple[float, float, float]] = ()
    """(from x, to x, y): means over stretches, drawn as horizontal strokes behind the line."""
    from_zero: bool = False
    """True: the y axis begins at 0, so that heights can be compared."""
    logarithmic: bool = False
    """True: both axes are logarithmic; every point must be above 0."""


def line_chart(curve: Curve, size: tuple[int, int] = WIDE) -> str:
    """The SVG element of a curve; an empty string if it has fewer than two finite points."""
    points = thin([(x, y) for x, y in curve.points if math.isfinite(x) and math.isfinite(y)])
    if len(points) < 2:
        return ""
    ends = points[0][1], points[-1][1]
    if curve.logarithmic:
        points = [(math.log10(x), math.log10(y)) for x, y in points]
    width, height = size
    x_low, x_high = points[0][0], points[-1][0]
    lowest = 0.0 if curve.from_zero else min(y for _, y in points)
    highest = max(y for _, y in points)
    y_ticks = decades(lowest, highest) if curve.logarithmic else ticks(lowest, highest, 5)
    x_ticks = decades(x_low, x_high) if curve.logarithmic else ticks(x_low, x_high, 6)

    def said(value: float) -> str:
        return short(10**value if curve.logarithmic else value)

    y_low, y_high = min(y_ticks[0], *(y for _, y in points)), max(y_ticks[-1], *(y for _, y in points))

    def left(x: float) -> float:
        return _LEFT + (x - x_low) / ((x_high - x_low) or 1) * (width - _LEFT - _RIGHT)

    def top(y: float) -> float:
        return height - _BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (height - _TOP - _BOTTOM)

    floor = height - _BOTTOM
    parts = [f"<title>{escape(curve.title)}: {curve.y_label} {short(ends[0])} → {short(ends[1])}</title>"]
    for y in y_ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{top(y):.1f}" y2="{top(y):.1f}"/>')
        parts.append(f'<text class="tick" text-anchor="end" x="{_LEFT - 8}" y="{top(y) + 4:.1f}">{said(y)}</text>')
    for x in curve.divisions:
        if x_low < x < x_high:
            parts.append(f'<line class="division" x1="{left(x):.1f}" x2="{left(x):.1f}" y1="{_TOP}" y2="{floor}"/>')
    for x in x_ticks:
        if x_low <= x <= x_high:
            anchor = "end" if left(x) > width - 40 else "middle"
            parts.append(f'<text class="tick" text-anchor="{anchor}" x="{left(x):.1f}" y="{floor + 16}">{said(x)}</text>')
    for start, stop, y in curve.levels:
        begin, end, level = left(max(start, x_low)), left(min(stop, x_high)), top(y)
        parts.append(f'<line class="level" x1="{begin:.1f}" x2="{end:.1f}" y1="{level:.1f}" y2="{level:.1f}"/>')
    path = " ".join(f"{left(x):.1f},{top(y):.1f}" for x, y in points)
    parts.append(f'<polyline class="curve" points="{path}"/>')
    x, y = points[-1]
    parts.append(f'<circle class="dot" cx="{left(x):.1f}" cy="{top(y):.1f}" r="3.5"/>')
    kind = ' class="wide"' if size == WIDE else ""
    return f'<svg{kind} viewBox="0 0 {width} {height}" role="img" aria-label="{escape(curve.title)}">{"".join(parts)}</svg>'


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: the first, the last, and the means of equal groups between them."""
    if len(points) <= limit:
        return list(points)
    inner = points[1:-1]
    groups = limit - 2
    edges = [len(inner) * group // groups for group in range(groups + 1)]
    means = []
    for start, stop in pairwise(edges):
        group = inner[start:stop]
        means.append((sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)))
    return [points[0], *means, points[-1]]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) that cover [low, high] in about `about` steps."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    magnitude = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if span / (factor * magnitude) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """The whole powers of ten of a logarithmic axis from 10**low to 10**high."""
    return [float(power) for power in range(math.floor(low), math.ceil(high) + 1)]


def short(value: float) -> str:
    """A number in about six characters at most: 950, 12.3k, 4.2M, 0.0371."""
    size = abs(value)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{value:.4g}"
