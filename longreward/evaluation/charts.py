"""Small figures as SVG text, which any browser and MLflow show: bars with intervals, histograms, radars, points,
differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from longreward.evaluation.statistics import Estimate

COLOURS = ("#9aa5b1", "#2f6fde", "#d9822b", "#3a9a5b")
PANEL_WIDTH, PANEL_HEIGHT = 760, 220
HEAD = 36  # above all panels: title and legend
LEFT, TOP, BOTTOM = 46, 40, 40  # of a panel: room for the axis, its title, the names below


@dataclass(frozen=True)
class Bars:
    """A panel of grouped bars: `series` name -> group name -> value."""

    title: str
    series: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Histogram:
    """A panel of outlines over common bins: `series` name -> its values."""

    title: str
    series: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Differences:
    """A column of differences around zero: row -> the difference; 1 where it is better, -1 worse, 0 not shown."""

    title: str
    rows: Mapping[str, tuple[Estimate, int]]


def bars(title: str, panels: Sequence[Bars], *, top: float) -> str:
    """Panels below each other on an axis from 0 to `top`; a thin line on each bar is its interval."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    drawn = []
    for place, panel in enumerate(panels):
        groups = list(dict.fromkeys(group for values in panel.series.values() for group in values))
        marks = [*_axis(top), *_bars_of(panel, groups, names, top)]
        drawn.append(_panel(place, panel.title, marks))
    return _figure(title, names, drawn)


def histograms(title: str, panels: Sequence[Histogram], *, unit: str, bins: int = 20) -> str:
    """Panels below each other, each with its own bins and the share of a series' values in each as its height."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    return _figure(title, names, [_histogram(place, panel, names, unit, bins) for place, panel in enumerate(panels)])


def differences(title: str, columns: Sequence[Differences]) -> str:
    """Columns side by side over common rows: a point each with its interval, blue where better, orange where worse."""
    names = list(dict.fromkeys(name for column in columns for name in column.rows))
    left, line = 130, 20
    wide = (PANEL_WIDTH - left - 10) / max(len(columns), 1)
    bottom = TOP + line * len(names)
    marks = [_text(left - 8, TOP + line * (row + 0.7), name, anchor="end", size=11) for row, name in enumerate(names)]
    for place, column in enumerate(columns):
        ends = [abs(end) for change, _ in column.rows.values() for end in (change.low, change.high)]
        reach = max(ends, default=0.0) or 1.0
        middle, scale = left + wide * (place + 0.5), wide * 0.44 / reach
        marks.append(_text(middle, TOP - 8, column.title, anchor="middle", size=12))
        marks.append(_line(middle, TOP, middle, bottom, "#999"))
        for end, anchor in ((-reach, "start"), (reach, "end")):
            marks.append(_text(middle + end * scale, bottom + 14, f"{end:+.2g}", anchor=anchor, size=10))
        for row, name in enumerate(names):
            if name not in column.rows:
                continue
            change, gain = column.rows[name]
            y, colour = TOP + line * (row + 0.5), {1: COLOURS[1], -1: COLOURS[2]}.get(gain, COLOURS[0])
            marks.append(_line(middle + change.low * scale, y, middle + change.high * scale, y, colour))
            said = f"{column.title}, {name}: {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
            marks.append(
                f'<circle cx="{middle + change.value * scale:.1f}" cy="{y:.1f}" r="4" fill="{colour}">'
                f"<title>{escape(said)}</title></circle>"
            )
    return _figure(title, [], [_panel(0, "", marks)], height=HEAD + bottom + 26)


def radar(title: str, series: Mapping[str, Mapping[str, Estimate]], *, top: float) -> str:
    """`series` name -> axis name -> value, each series a polygon over common axes from 0 in the middle to `top`."""
    names, axes = list(series), list(dict.fromkeys(axis for values in series.values() for axis in values))
    side, radius = 2 * PANEL_HEIGHT, PANEL_HEIGHT * 0.72

    def at(axis: int, share: float) -> tuple[float, float]:
        angle = 2 * math.pi * axis / len(axes) - math.pi / 2
        reach = radius * min(max(share, 0), 1)
        return PANEL_WIDTH / 2 + reach * math.cos(angle), side / 2 + reach * math.sin(angle)

    marks = []
    for share in (0.25, 0.5, 0.75, 1):
        marks.append(_polygon([at(axis, share) for axis in range(len(axes))], "none", "#ddd"))
        marks.append(_text(PANEL_WIDTH / 2 + 3, side / 2 - radius * share - 2, f"{share * top:g}", size=9))
    for place, axis in enumerate(axes):
        x, y = at(place, 1)
        marks.append(_line(PANEL_WIDTH / 2, side / 2, x, y, "#ddd"))
        x, y = PANEL_WIDTH / 2 + (x - PANEL_WIDTH / 2) * 1.16, side / 2 + (y - side / 2) * 1.1
        marks.append(_text(x, y + 4, axis, anchor="middle", size=11))
    for index, name in enumerate(names):
        values = [series[name].get(axis) for axis in axes]
        points = [at(place, value.value / top if value else 0) for place, value in enumerate(values)]
        said = ", ".join(f"{axis} {value.value:.2f}" for axis, value in zip(axes, values, strict=True) if value)
        marks.append(_polygon(points, _colour(index), _colour(index), said=f"{name}: {said}"))
    return _figure(title, names, [f'<g transform="translate(0 {HEAD})">{"".join(marks)}</g>'], height=HEAD + side)


def scatter(title: str, series: Mapping[str, Sequence[tuple[float, float]]], *, top: float, unit: str) -> str:
    """`series` name -> points (x, y): x on a logarithmic axis named `unit`, y from 0 to `top`."""
    names = list(series)
    places = [math.log10(max(x, 1)) for points in series.values() for x, _ in points]
    low, high = min(places), max(places)
    width = PANEL_WIDTH - LEFT - 30

    def across(x: float) -> float:
        return LEFT + 10 + width * (math.log10(max(x, 1)) - low) / ((high - low) or 1.0)

    marks = _axis(top)
    for index, name in enumerate(names):
        for x, y in series[name]:
            marks.append(
                f'<circle cx="{across(x):.1f}" cy="{_height(y, top):.1f}" r="4" fill="{_colour(index)}" '
                f'fill-opacity="0.6"><title>{escape(f"{name}: {x:,.0f} {unit}, {y:.2f}")}</title></circle>'
            )
    for share in (0, 0.5, 1):
        x = 10 ** (low + share * (high - low))
        marks.append(_text(across(x), PANEL_HEIGHT - BOTTOM + 16, f"{x:,.0f}", anchor="middle", size=10))
    marks.append(_text(PANEL_WIDTH / 2, PANEL_HEIGHT - 10, unit, anchor="middle", size=10))
    return _figure(title, names, [_panel(0, "", marks)])


def _bars_of(panel: Bars, groups: Sequence[str], names: Sequence[str], top: float) -> list[str]:
    marks = []
    slot = (PANEL_WIDTH - LEFT - 10) / max(len(groups), 1)
    width = slot * 0.8 / max(len(names), 1)
    for number, group in enumerate(groups):
        start = LEFT + number * slot + slot * 0.1
        marks.append(_text(start + slot * 0.4, PANEL_HEIGHT - BOTTOM + 16, group, anchor="middle", size=10))
        for index, name in enumerate(names):
            estimate = panel.series.get(name, {}).get(group)
            if estimate is None:
                continue
            x, y = start + index * width, _height(estimate.value, top)
            said = f"{name}, {group}: {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
            marks.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_height(0, top) - y:.1f}" '
                f'fill="{_colour(index)}"><title>{escape(said)}</title></rect>'
            )
            low, high = _height(estimate.low, top), _height(estimate.high, top)
            marks.append(_line(x + width / 2, low, x + width / 2, high, "#222"))
            marks.append(_text(x + width / 2, min(y, high) - 4, f"{estimate.value:.2f}", anchor="middle", size=9))
    return marks


def _histogram(place: int, panel: Histogram, names: Sequence[str], unit: str, bins: int) -> str:
    everything = [value for values in panel.series.values() for value in values]
    if not everything:
        return _panel(place, panel.title, [])
    low, high = min(everything), max(everything)
    step = (high - low) / bins or 1.0
    shares = {}
    for name, values in panel.series.items():
        counts = [0] * bins
        for value in values:
            counts[min(int((value - low) / step), bins - 1)] += 1
        shares[name] = [count / max(len(values), 1) for count in counts]
    top = max(max(share) for share in shares.values())
    wide = (PANEL_WIDTH - LEFT - 10) / bins
    marks = _axis(top, percent=True)
    for index, name in enumerate(names):
        points = []
        for number, share in enumerate(shares.get(name, ())):
            x, y = LEFT + number * wide, _height(share, top)
            points += [f"{x:.1f},{y:.1f}", f"{x + wide:.1f},{y:.1f}"]
        base = f"{_height(0, top):.1f}"
        outline = " ".join([f"{LEFT},{base}", *points, f"{PANEL_WIDTH - 10},{base}"])
        colour = _colour(index)
        marks.append(f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.3" stroke="{colour}"/>')
    for part, anchor in ((0, "start"), (bins / 2, "middle"), (bins, "end")):
        x, said = LEFT + part * wide, f"{low + part * step:g}"
        marks.append(_text(x, PANEL_HEIGHT - BOTTOM + 16, said, anchor=anchor, size=10))
    marks.append(_text(PANEL_WIDTH / 2, PANEL_HEIGHT - 10, unit, anchor="middle", size=10))
    return _panel(place, panel.title, marks)


def _axis(top: float, *, percent: bool = False) -> list[str]:
    marks = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y, value = _height(share * top, top), share * top
        marks.append(_line(LEFT, y, PANEL_WIDTH - 10, y, "#ddd"))
        marks.append(_text(LEFT - 6, y + 4, f"{value:.0%}" if percent else f"{value:g}", anchor="end", size=10))
    return marks


def _height(value: float, top: float) -> float:
    inside = PANEL_HEIGHT - TOP - BOTTOM
    return TOP + inside * (1 - min(max(value / top, 0), 1))


def _panel(place: int, title: str, marks: Sequence[str]) -> str:
    shown = _text(LEFT, TOP - 16, title, size=12)
    return f'<g transform="translate(0 {HEAD + place * PANEL_HEIGHT})">{shown}{"".join(marks)}</g>'


def _figure(title: str, names: Sequence[str], panels: Sequence[str], *, height: float | None = None) -> str:
    width, height = PANEL_WIDTH, height or HEAD + len(panels) * PANEL_HEIGHT
    legend = []
    for index, name in enumerate(names):
        x = width - 90 * (len(names) - index)
        legend.append(f'<rect x="{x}" y="12" width="12" height="12" fill="{_colour(index)}"/>')
        legend.append(_text(x + 18, 22, name, size=12))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{_text(10, 22, title, size=14)}'
        f"{''.join(legend)}{''.join(panels)}</svg>\n"
    )


def _polygon(points: Sequence[tuple[float, float]], fill: str, stroke: str, *, said: str = "") -> str:
    listed = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    title = f"<title>{escape(said)}</title>" if said else ""
    return f'<polygon points="{listed}" fill="{fill}" fill-opacity="0.2" stroke="{stroke}">{title}</polygon>'


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
