"""Matplotlib charts: grouped bars with intervals, histograms, and differences around zero.

The figures have their own canvas (no pyplot), so that they need no display and leave no global state.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from longreward.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#9aa5b1", "#2f6fde", "#d9822b", "#3a9a5b")
BETTER, WORSE, NOT_SIGNIFICANT = COLORS[1], COLORS[2], COLORS[0]
WIDTH, PANEL_HEIGHT = 9.0, 2.8  # inches

Series = Mapping[str, Mapping[str, Estimate]]
"""Series name -> group name -> estimate."""


def draw_bars(title: str, panels: Mapping[str, Series], *, top: float) -> "Figure":
    """Draw one panel of grouped bars per entry, on an axis from 0 to `top`, with intervals as error bars."""
    figure, axes = _create_panels(title, len(panels))
    for axis, (panel_title, series) in zip(axes, panels.items(), strict=True):
        groups = list(dict.fromkeys(group for values in series.values() for group in values))
        width = 0.8 / max(len(series), 1)
        for index, (name, values) in enumerate(series.items()):
            positions = [groups.index(group) + (index - (len(series) - 1) / 2) * width for group in values]
            estimates = list(values.values())
            heights = [estimate.value for estimate in estimates]
            errors = [
                [estimate.value - estimate.low for estimate in estimates],
                [estimate.high - estimate.value for estimate in estimates],
            ]
            axis.bar(positions, heights, width, yerr=errors, label=name, color=_color(index), ecolor="#222", capsize=2)
        axis.set(title=panel_title, ylim=(0, top))
        axis.set_xticks(range(len(groups)), groups)
        axis.grid(axis="y", alpha=0.4)
    _add_legend(figure, axes)
    return figure


def draw_histograms(
    title: str, panels: Mapping[str, Mapping[str, Sequence[float]]], unit: str, *, bins: int = 20
) -> "Figure":
    """Draw one panel per entry with the share of the values of each series in common bins."""
    figure, axes = _create_panels(title, len(panels))
    for axis, (panel_title, series) in zip(axes, panels.items(), strict=True):
        all_values = [value for values in series.values() for value in values]
        limits = (min(all_values), max(all_values)) if all_values else (0.0, 1.0)
        for index, (name, values) in enumerate(series.items()):
            # `density=True` would scale by the width of the bins; these weights give shares.
            weights = [1 / len(values) for _ in values]
            style: dict[str, Any] = {"histtype": "stepfilled", "alpha": 0.4, "color": _color(index)}
            axis.hist(values, bins=bins, range=limits, weights=weights, label=name, **style)
        axis.set(title=panel_title, xlabel=unit)
        axis.yaxis.set_major_formatter("{x:.0%}")
    _add_legend(figure, axes)
    return figure


def draw_differences(title: str, columns: Mapping[str, Mapping[str, tuple[Estimate, int]]]) -> "Figure":
    """Draw one column of differences per entry, with intervals, over common rows.

    Args:
        columns: Title -> row -> (difference, 1 if significantly better, -1 if significantly worse, else 0).
    """
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(row for column in columns.values() for row in column))
    figure = Figure(figsize=(WIDTH, 0.3 * len(rows) + 1.4), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, (column_title, column) in zip(axes, columns.items(), strict=True):
        for row, (difference, improvement) in column.items():
            color = {1: BETTER, -1: WORSE, 0: NOT_SIGNIFICANT}[improvement]
            errors = [[difference.value - difference.low], [difference.high - difference.value]]
            axis.errorbar([difference.value], [rows.index(row)], xerr=errors, fmt="o", color=color)
        # A symmetric axis has zero in the middle of every column.
        limit = max(abs(bound) for bound in axis.get_xlim())
        axis.axvline(0, color="#999", linewidth=1)
        axis.set(title=column_title, xlim=(-limit, limit))
        axis.locator_params(axis="x", nbins=5)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)  # the first row at the top
    return figure


def _create_panels(title: str, count: int) -> "tuple[Figure, list[Any]]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * count + 0.6), layout="constrained")
    figure.suptitle(title)
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def _add_legend(figure: "Figure", axes: Sequence[Any]) -> None:
    """Add one legend for all panels, which have the same series."""
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels))


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]
