"""Figures of the report as SVG text that can stand inside an HTML page, several of them side by side.

Matplotlib's object interface only, so that no global figure state is left behind. Words stay text in the SVG.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
import warnings
from collections.abc import Sequence
from itertools import accumulate

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from clinical_reasoner.evaluation.metrics import Estimate

# Blue, vermillion and grey of Okabe & Ito (jfly.uni-koeln.de/color), told apart with every common colour blindness.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#6b7280"
INK, PALE = "#111827", "#e5e7eb"
WIDTH, LETTER = 3.9, 0.075
"""Inches: what a narrow screen shows without making it smaller, and a letter of 9 pt on average."""
_LINE = 0.16
"""Inches: a line of 9 pt."""
_MAP = "Blues"
"""One hue from light to dark: readable without colour vision and on a grey printer."""


def forest_svg(rows: Sequence[tuple[str, Estimate]], measure: str, *, prefix: str, ceiling: float | None = None) -> str:
    """One line per model, top to bottom: name, value and 95 % interval; a vertical line where `ceiling` (0..1) is.

    `rows` are (display name, estimate in 0..1). `prefix` must differ between figures of one page.
    """
    # A bold letter is up to 0.085 inch wide, and the numbers to the right of the name need 1.8 inches.
    width = max(5.2, 0.085 * max(len(name) for name, _ in rows) + 1.8)
    figure = Figure(figsize=(width, 0.9 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    left = min(one.low for _, one in rows)
    right = max([one.high for _, one in rows] + ([ceiling] if ceiling is not None else []))
    margin = max(0.05 * (right - left), 0.01)
    axes.set_xlim(left - margin, right + margin)
    axes.set_ylim(len(rows) - 0.4, -0.85)
    for place, (name, one) in enumerate(rows):
        axes.plot([one.low, one.high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot([one.value], [place], marker="o", markersize=7, color=BLUE)
        line = place - 0.3
        _words(axes, 0.0, line, name, ha="left", weight="bold")
        _words(axes, 1.0, line, f"{one.value:.3f}  [{one.low:.3f}, {one.high:.3f}]", ha="right")
    if ceiling is not None:
        axes.axvline(ceiling, color=VERMILLION, linewidth=1.5, linestyle=(0, (5, 3)), zorder=1)
    axes.set_yticks([])
    axes.set_xlabel(measure if ceiling is None else f"{measure}; dashed line: Bayes ceiling {ceiling:.3f}", fontsize=9)
    axes.tick_params(axis="x", labelsize=9)
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "left", "right"]].set_visible(False)
    spoken = "; ".join(f"{name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for name, one in rows)
    ceiling_spoken = "" if ceiling is None else f"; Bayes ceiling {ceiling:.3f}"
    return inline_svg(figure, prefix, f"{measure} with 95 % interval: {spoken}{ceiling_spoken}")


def confusion_svg(confusion: Sequence[Sequence[int]], labels: Sequence[str], name: str, *, prefix: str) -> str:
    """One confusion matrix: visits in the cells, colour = share of the row (the true label), diagonal framed.

    `confusion` has one row per true label and one column per predicted label, then "unparsed".
    """
    counts: NDArray[np.int64] = np.array(confusion, dtype=np.int64)
    columns = [*labels, "unparsed"]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(0.9 + 0.62 * len(columns), 0.8 + 0.48 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    shades = matplotlib.colormaps[_MAP]
    for (row, column), count in np.ndenumerate(counts):
        part = float(share[row, column])
        edge, width = ("#111827", 1.4) if row == column else ("#d1d5db", 0.6)
        corner = (column - 0.47, row - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, facecolor=shades(0.9 * part), edgecolor=edge, linewidth=width))
        ink = "white" if part > 0.6 else "#111827"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=10, color=ink)
    axes.set_xticks(range(len(columns)), columns, fontsize=9, parse_math=False)
    axes.set_yticks(range(len(labels)), list(labels), fontsize=9, parse_math=False)
    axes.set_xlabel("predicted", fontsize=9, color=GREY)
    axes.set_ylabel("true", fontsize=9, color=GREY)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    spoken = "; ".join(
        f"true {label}: " + ", ".join(f"{number} {column}" for number, column in zip(row, columns, strict=True))
        for label, row in zip(labels, counts.tolist(), strict=True)
    )
    return inline_svg(figure, prefix, f"Confusion matrix of {name}. {spoken}")


def bars_svg(rows: Sequence[tuple[str, str, float]], what: str, *, prefix: str) -> str:
    """One bar for each row, top to bottom: name and number above, and the share, 0 to 1, as its length.

    `what` is the spoken name of the figure. `prefix` must differ between figures of one page.
    """
    letters = int(WIDTH / LETTER) - max(len(number) for _, number, _ in rows) - 2
    names = [textwrap.wrap(name, letters) or [name] for name, _, _ in rows]
    heights = [_LINE * len(lines) + 0.22 for lines in names]
    figure = Figure(figsize=(WIDTH, sum(heights)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, 1)
    axes.set_ylim(sum(heights), 0)  # inches from the top
    axes.set_axis_off()
    for (_, number, share), lines, bottom in zip(rows, names, accumulate(heights), strict=True):
        bar = bottom - 0.16
        axes.add_patch(Rectangle((0, bar), 1, 0.08, facecolor=PALE))
        axes.add_patch(Rectangle((0, bar), share, 0.08, facecolor=BLUE))
        for place, line in enumerate(reversed(lines)):
            height = bar - 0.05 - _LINE * place
            axes.text(0, height, line, ha="left", va="baseline", fontsize=9, color=INK, parse_math=False)
        axes.text(1, bar - 0.05, number, ha="right", va="baseline", fontsize=9, color=INK)
    return inline_svg(figure, prefix, f"{what}: {'; '.join(f'{name} {number}' for name, number, _ in rows)}")


def _words(axes: Axes, x: float, y: float, text: str, *, ha: str, weight: str = "normal") -> None:
    """Text at a share of the width and a row of the data. Names may hold a dollar sign: it is no formula."""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    across = axes.get_yaxis_transform()
    axes.text(x, y, text, ha=ha, va="center", weight=weight, fontsize=9, parse_math=False, transform=across, bbox=box)


def inline_svg(figure: Figure, prefix: str, label: str) -> str:
    """The figure as an `<svg>` element with a spoken label, whose ids and style touch nothing else on the page."""
    FigureCanvasAgg(figure)
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.family": "sans-serif"}),
        warnings.catch_warnings(),
    ):
        # The reader's browser draws the words with its own fonts; matplotlib's font only measures them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{prefix}-", text)
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
