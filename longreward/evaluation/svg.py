"""Small figures as SVG text, which any browser and MLflow's pages show: bars with intervals, and histograms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from longreward.evaluation.bootstrap import Estimate

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


def _figure(title: str, names: Sequence[str], panels: Sequence[str]) -> str:
    width, height = PANEL_WIDTH, HEAD + len(panels) * PANEL_HEIGHT
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


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
