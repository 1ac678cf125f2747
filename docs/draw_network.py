"""Draw the network: the four streams, the fuser, and what a CLRA and a dense block are.

    python docs/draw_network.py [-o docs/network.svg]

Writes the SVG and, beside it, a PNG of the same name. Depths come from `csakd_geo.models.VARIANTS`;
names in typewriter letters are state keys. `tests/test_docs.py` holds both against the code.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csakd_geo.models import VARIANTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Convolutions by state key: channels in and out. The 2B of `hmconv1` is the residual form's.
CHANNELS = {
    "mhconv1": ("B+M", "nf"),
    "hconv1": ("B", "nf"),
    "mconv1": ("M", "nf"),
    "hmconv1": ("2B+M", "nf"),
    "fuse": ("nf", "B"),
    "last": ("B", "B"),
}
#: Stacks by state key, in the order of a variant's depths.
STACKS = ("hmfeat", "mhfeat", "hfeat", "mfeat")
#: Parts of the fuser by state key (under ``fuse_att.``): channels in and out.
FUSER = {
    "query_conv": ("nf", "64"),
    "key_conv": ("nf", "64"),
    "value_conv": ("nf", "64"),
    "output_conv": ("64", "nf"),
    "attention_weights": ("4nf", "4"),
}

WIDTH, HEIGHT = 14.0, 10.05  # drawing units
INCHES = 10.0  # wide, so that 100 dots per inch give 1000 pixels
DPI = 200
COLOURS = 128  # of the PNG, which is a third as large for it

COARSE, COARSE_PALE = "#c2571a", "#fdf1e7"
FINE, FINE_PALE = "#1f5f9e", "#ebf3fa"
MIXED, INK, WHITE = "#5b4a8a", "#222222", "#ffffff"
MIXED_PALE = "#f3f0f9"
MONO = "DejaVu Sans Mono"

ROW = {"x3": 9.0, "x1": 7.7, "x2": 5.9, "x4": 4.6}  # height of each stream
BASE_SKIP = 3.72
TOP = 9.95


class Drawing:
    """A canvas in drawing units with the few shapes that the figure is made of."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes

    def text(self, x: float, y: float, words: str, *, size: float = 7.5, **style: Any) -> None:
        """Write centred text."""
        settings = {"ha": "center", "va": "center", "color": INK, "zorder": 6} | style
        self.axes.text(x, y, words, fontsize=size, **settings)

    def panel(self, left: float, bottom: float, right: float, top: float, **style: Any) -> None:
        """Fill a rounded area behind other shapes."""
        from matplotlib.patches import FancyBboxPatch

        settings = {"linewidth": 0, "zorder": 0, "boxstyle": "round,pad=0,rounding_size=0.15"} | style
        self.axes.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, **settings))

    def box(self, x: float, y: float, size: tuple[float, float], colour: str, **style: Any) -> None:
        """Draw a box around a centre; `fill` colours it."""
        width, height = size
        settings = {
            "facecolor": style.pop("fill", WHITE),
            "edgecolor": colour,
            "linewidth": 1.1,
            "zorder": 4,
            "boxstyle": "round,pad=0,rounding_size=0.07",
        } | style
        self.panel(x - width / 2, y - height / 2, x + width / 2, y + height / 2, **settings)

    def part(
        self, x: float, y: float, size: tuple[float, float], colour: str, key: str, note: str, **style: Any
    ) -> None:
        """Draw a box with a state key and one line under it."""
        self.box(x, y, size, colour, **style)
        self.text(x, y + 0.13, key, size=7.5, family=MONO, weight="bold", color=colour)
        self.text(x, y - 0.15, note, size=7)

    def line(self, *points: tuple[float, float], **style: Any) -> None:
        """Draw an arrow along the axes, through the points between."""
        from matplotlib.patches import Polygon

        settings = {"color": style.pop("colour", INK), "linewidth": 1.0, "zorder": 2} | style
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = 0.15 * (x1 - x0) / length, 0.15 * (y1 - y0) / length
        foot = x1 - dx, y1 - dy
        wings = [(foot[0] + side * dy, foot[1] - side * dx) for side in (0.38, -0.38)]
        head = Polygon(
            [(x1, y1), *wings], color=settings["color"], linewidth=0, zorder=settings["zorder"] + 1
        )
        self.axes.add_patch(head)
        self.axes.plot(*zip(*points[:-1], foot, strict=True), **settings)

    def arc(self, start: tuple[float, float], end: tuple[float, float], rise: float, colour: str) -> None:
        """Draw a curve that leaves `start` upwards and comes down on `end`."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Curve

        (x0, y0), (x1, y1) = start, end
        foot = y1 + 0.12
        corners = [(x0, y0), (x0, y0 + rise), (x1, y1 + rise), (x1, foot)]
        codes = [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4]
        style = {"facecolor": "none", "edgecolor": colour, "linewidth": 0.9, "zorder": 2}
        self.axes.add_patch(PathPatch(Curve(corners, codes), **style))
        self.line((x1, foot + 0.02), (x1, y1), colour=colour, linewidth=0.9)

    def gap(self, x: float, y: float, behind: str, *, zorder: float = 2.1) -> None:
        """Cut a horizontal line where a vertical one that it does not join passes over it."""
        style = {"color": behind, "linewidth": 5, "solid_capstyle": "butt", "zorder": zorder}
        self.axes.plot((x - 0.09, x + 0.09), (y, y), **style)

    def dot(self, x: float, y: float, colour: str = INK) -> None:
        """Mark where a line branches."""
        self.axes.plot([x], [y], "o", markersize=2.8, color=colour, zorder=3)

    def sign(self, x: float, y: float, words: str, colour: str = INK, **style: Any) -> None:
        """Draw an operator in a circle."""
        from matplotlib.patches import Circle

        settings = {"facecolor": WHITE, "edgecolor": colour, "linewidth": 1.0, "zorder": 4} | style
        self.axes.add_patch(Circle((x, y), 0.17, **settings))
        self.text(x, y - 0.01, words, size=9, color=colour)


def draw(path: Path) -> None:
    """Write the figure as SVG to `path` and as PNG beside it."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    with mpl.rc_context({"font.family": "DejaVu Sans", "svg.hashsalt": "network", "mathtext.fontset": "cm"}):
        figure = Figure(figsize=(INCHES, INCHES * HEIGHT / WIDTH))
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
        axes.axis("off")
        drawing = Drawing(axes)
        _streams(drawing)
        _fuser(drawing)
        _output(drawing)
        _dense_block(drawing)
        _clra(drawing)
        _key(drawing)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        with BytesIO() as picture:
            figure.savefig(picture, format="png", dpi=DPI)
            pixels = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        pixels.save(path.with_suffix(".png"), optimize=True)


def _note(key: str) -> str:
    """Kernel and channels of a convolution."""
    kernel, table = ("3×3", CHANNELS) if key in CHANNELS else ("1×1", FUSER)
    return f"{kernel}, {table[key][0]}→{table[key][1]}"


def _depths(key: str) -> str:
    """How many CLRA teacher and student have in a stack; the student never calls `hmfeat`."""
    teacher, student = (VARIANTS[name][STACKS.index(key)] for name in ("teacher", "student"))
    return f"{teacher} | –" if key == "hmfeat" else f"{teacher} | {student}"


def _streams(d: Drawing) -> None:
    """Inputs, first convolutions, stacks and resampling, left of the fuser."""
    d.panel(0.1, 7.1, 6.8, TOP, facecolor=COARSE_PALE)
    d.panel(0.1, 3.35, 13.9, 6.5, facecolor=FINE_PALE)
    d.panel(6.94, 3.35, 13.9, TOP, facecolor=FINE_PALE)
    d.text(0.28, TOP - 0.25, r"coarse grid, $h \times w$", ha="left", color=COARSE, weight="bold", size=8)
    d.text(0.28, 3.57, r"fine grid, $rh \times rw$", ha="left", color=FINE, weight="bold", size=8)
    for name, row, what, colour, style in (
        ("HSI", "x1", "B bands", COARSE, "-"),
        ("MSI", "x2", "M bands", FINE, "-"),
        ("base", "x4", "B bands", FINE, "--"),
    ):
        y = ROW[row] - (0.22 if name == "base" else 0)
        dashed = style == "--"
        d.box(0.72, y, (0.95, 0.62), colour, fill=WHITE if dashed else colour, linestyle=style)
        ink = colour if dashed else WHITE
        d.text(0.72, y + 0.12, name, size=8.5, weight="bold", color=ink)
        d.text(0.72, y - 0.14, what, size=7.5, color=ink)

    hsi, msi, bar = 1.55, 2.05, 2.62  # where the inputs branch, and where they are concatenated
    x3, x1, x2, x4 = (ROW[key] for key in ("x3", "x1", "x2", "x4"))
    # the HSI: to x1, up to x3, down to x4
    d.line((1.2, x1), (2.9, x1), colour=COARSE)
    d.line((hsi, x1), (hsi, x3 + 0.15), (bar - 0.1, x3 + 0.15), colour=COARSE, zorder=2.2)
    d.line((hsi, x1), (hsi, x4 + 0.2), (bar - 0.1, x4 + 0.2), colour=COARSE, zorder=2.2)
    d.dot(hsi, x1, COARSE)
    # the MSI: to x2, up to x3, down to x4
    d.line((1.2, x2), (2.9, x2), colour=FINE)
    d.line((msi, x2), (msi, x3 - 0.15), (bar - 0.1, x3 - 0.15), colour=FINE, zorder=2.2)
    d.line((msi, x2), (msi, x4), (bar - 0.1, x4), colour=FINE, zorder=2.3)
    d.dot(msi, x2, FINE)
    d.gap(msi, x1, COARSE_PALE)
    d.gap(hsi, x2, FINE_PALE)
    d.gap(msi, x4 + 0.2, FINE_PALE, zorder=2.25)
    # the base: to x4
    d.line((1.2, x4 - 0.22), (bar - 0.1, x4 - 0.22), colour=FINE, linestyle="--")
    for y in (x3, x4):
        d.box(bar, y, (0.2, 0.78), INK, fill="#e4e4e4")
        d.text(bar, y, "concat", size=6.5, rotation=90)
        d.line((bar + 0.1, y), (2.9, y))
    middle = (7.1 + 6.5) / 2
    _resample(d, 1.2, middle, "bilinear\n↑r", hsi)
    _resample(d, 2.44, middle, "bicubic\n↓r", msi)

    for row, conv, stack, colour in (
        ("x3", "mhconv1", "mhfeat", COARSE),
        ("x1", "hconv1", "hfeat", COARSE),
        ("x2", "mconv1", "mfeat", FINE),
        ("x4", "hmconv1", "hmfeat", FINE),
    ):
        y = ROW[row]
        d.part(3.58, y, (1.36, 0.66), colour, conv, _note(conv))
        d.line((4.26, y), (4.5, y))
        for shift in (0.1, 0.05):
            d.box(5.14 + shift, y - shift, (1.28, 0.66), colour)
        d.part(5.14, y, (1.28, 0.66), colour, stack, f"CLRA: {_depths(stack)}")
        coarse = colour == COARSE
        d.line((5.88, y), (6.08 if coarse else 7.2, y))
        if coarse:
            d.box(6.39, y, (0.62, 0.54), MIXED)
            d.text(6.39, y, "nearest\n↑r", size=6.8, color=MIXED)
            d.line((6.7, y), (7.2, y))


def _resample(d: Drawing, x: float, y: float, words: str, line: float) -> None:
    """Name a resampling that sits on a vertical line."""
    d.axes.plot([line], [y], "s", markersize=7, markerfacecolor=WHITE, markeredgecolor=MIXED, zorder=4)
    d.text(x, y, words, size=6.8, color=MIXED, linespacing=0.95)


def _fuser(d: Drawing) -> None:
    """Cross self-attention: the streams run through; attention branches off them and joins x4."""
    left, right, top = 7.2, 11.98, TOP - 0.2
    x3, x1, x2, x4 = (ROW[key] for key in ("x3", "x1", "x2", "x4"))
    d.box((left + right) / 2, (4.02 + top) / 2, (right - left, top - 4.02), MIXED, fill=MIXED_PALE, zorder=1)
    d.text(left + 0.15, top - 0.2, "fuse_att", family=MONO, weight="bold", color=MIXED, ha="left")
    d.text(left + 1.05, top - 0.2, "cross self-attention (CSA, fuser 3)", color=MIXED, ha="left", size=7.5)

    tap, bar, mix = 7.5, 11.02, 10.42  # where streams branch, where they are joined, where values are mixed
    for name, y in (("1", x1), ("2", x2), ("3", x3), ("4", x4)):
        d.text(7.02, y + 0.17, f"$x_{name}$", size=9.5)
        d.line((left, y), (bar if name != "4" else mix - 0.17, y))
    half = (x1 + x2) / 2
    for key, y, stream in (
        ("value_conv", (x3 + x1) / 2, x3),
        ("query_conv", half + 0.37, x1),
        ("key_conv", half - 0.37, x2),
    ):
        d.dot(tap, stream)
        d.line((tap, stream), (tap, y), (7.72, y))
        d.part(8.37, y, (1.3, 0.58), MIXED, key, _note(key))
    d.line((9.02, half + 0.37), (9.24, half + 0.37))
    d.line((9.02, half - 0.37), (9.24, half - 0.37))
    d.box(9.68, half, (0.88, 1.32), MIXED)
    d.text(9.68, half + 0.34, "softmax of", size=7)
    d.text(9.68, half, r"$\tau\,\cos(q_i, k_j)$", size=8)
    d.text(9.68, half - 0.34, "4 × 16×16", size=7)
    d.line((10.12, half), (mix - 0.17, half))
    d.line((9.02, (x3 + x1) / 2), (mix, (x3 + x1) / 2), (mix, half + 0.17), zorder=2.2)
    d.text(9.75, (x3 + x1) / 2 + 0.16, "$v$, 4×16 channels", size=7)
    d.sign(mix, half, "×", MIXED)
    d.line((mix, half - 0.17), (mix, 5.54), zorder=2.2)
    d.gap(mix, x1, MIXED_PALE)
    d.gap(mix, x2, MIXED_PALE)
    d.part(mix - 0.22, 5.25, (1.36, 0.58), MIXED, "output_conv", _note("output_conv"))
    d.line((mix, 4.96), (mix, x4 + 0.17))
    d.sign(mix, x4, "+", MIXED)
    d.line((mix + 0.17, x4), (bar, x4))
    d.text((mix + bar) / 2 + 0.1, x4 - 0.22, r"$\hat{x}$", size=9.5)

    d.box(11.4, (x3 + x4) / 2, (0.76, x3 - x4 + 0.76), MIXED)
    turned = {"rotation": 90, "size": 7.5}
    d.text(11.17, half, "attention_weights", family=MONO, weight="bold", color=MIXED, **turned)
    d.text(11.4, half, f"{_note('attention_weights')}, sigmoid: gates $a_0 \\dots a_3$ per pixel", **turned)
    d.text(11.64, half, r"$F = a_0 x_1 + a_1 x_2 + a_2 x_3 + a_3 \hat{x}$", rotation=90, size=9)


def _output(d: Drawing) -> None:
    """From the features to the fused cube."""
    x, skip = 13.1, 12.28
    x4 = ROW["x4"]
    d.line((11.78, 8.35), (12.44, 8.35))
    d.text(12.14, 8.55, "$F$", size=9.5)
    d.part(x, 8.35, (1.3, 0.66), FINE, "fuse", _note("fuse"))
    d.line((x, 8.02), (x, 7.38))
    d.text(x - 0.1, 7.72, "LeakyReLU", size=7, ha="right")
    d.part(x, 7.05, (1.3, 0.66), FINE, "last", _note("last"))
    d.line((x, 6.72), (x, 6.1))
    d.sign(x, 5.93, "+", FINE, linestyle="--")
    d.line((x, 5.76), (x, 5.13))
    d.box(x, 4.76, (1.3, 0.74), FINE, fill=FINE)
    d.text(x, 4.9, "HR-HSI", size=8.5, weight="bold", color=WHITE)
    d.text(x, 4.62, "B bands", size=7.5, color=WHITE)
    start = 1.3
    d.dot(start, x4 - 0.22, FINE)
    d.line(
        (start, x4 - 0.22),
        (start, BASE_SKIP),
        (skip, BASE_SKIP),
        (skip, 5.93),
        (x - 0.17, 5.93),
        colour=FINE,
        linestyle="--",
    )


def _dense_block(d: Drawing) -> None:
    """Draw one dense block: five convolutions, each on the input and all earlier outputs."""
    d.text(0.2, 2.98, "dense block", ha="left", weight="bold", size=8)
    d.text(1.42, 2.98, "MFB1", family=MONO, weight="bold", ha="left", color=INK)
    d.text(1.86, 2.98, "to", ha="left")
    d.text(2.09, 2.98, "MFB3", family=MONO, weight="bold", ha="left", color=INK)
    y, first, step = 1.2, 1.75, 1.22
    shades = ("#222222", "#7a3b8f", "#2f7f73", "#b5651d", "#5a6f8f")
    centres = [first + step * k for k in range(5)]
    d.line((0.5, y), (centres[0] - 0.44, y))
    d.text(0.36, y, "$x$", size=10)
    for k, centre in enumerate(centres):
        d.box(centre, y, (0.88, 0.56), INK)
        d.text(centre, y + 0.02, f"conv{k + 1}", family=MONO, weight="bold", size=7.5)
        wide = "nf" if k == 0 else f"nf+{'' if k == 1 else k}gc"
        d.text(centre, y - 0.45, f"{wide}→{'gc' if k < 4 else 'nf'}", size=7)
        if k < 4:
            d.line((centre + 0.44, y), (centres[k + 1] - 0.44, y), colour=shades[k + 1])
    sources = [0.72, *(c + 0.53 for c in centres[:3])]
    for i, source in enumerate(sources):
        d.dot(source, y, shades[i])
        for j in range(i + 1, 5):
            landing = centres[j] - 0.3 + 0.2 * i
            rise = 0.75 + 0.28 * (j - i)
            d.arc((source, y), (landing, y + 0.28), rise, shades[i])
    end = centres[-1] + 0.44
    d.line((end, y), (end + 0.72, y))
    d.text(end + 0.33, y + 0.17, "×0.2", size=7.5)
    d.sign(end + 0.89, y, "+")
    d.line((0.72, y), (0.72, 0.35), (end + 0.89, 0.35), (end + 0.89, y - 0.17))
    d.line((end + 1.06, y), (end + 1.4, y))


def _clra(d: Drawing) -> None:
    """Draw one CLRA: three dense blocks in a row and a skip around them."""
    d.text(8.85, 2.98, "CLRA", ha="left", weight="bold", size=8)
    d.text(9.45, 2.98, "one element of a stack", ha="left")
    y, first, step = 2.42, 9.95, 1.12
    d.text(8.93, y, "$x$", size=10)
    d.line((9.07, y), (first - 0.37, y))
    d.dot(9.3, y)
    for k in range(3):
        centre = first + step * k
        d.box(centre, y, (0.74, 0.5), INK)
        d.text(centre, y, f"MFB{k + 1}", family=MONO, weight="bold", size=7.5)
        d.line((centre + 0.37, y), (centre + (step - 0.37 if k < 2 else 0.95), y))
    end = first + 2 * step + 0.95
    d.text(end - 0.3, y + 0.17, "×0.2", size=7.5)
    d.sign(end + 0.17, y, "+")
    d.line((9.3, y), (9.3, 1.97), (end + 0.17, 1.97), (end + 0.17, y - 0.17))
    d.line((end + 0.34, y), (end + 0.62, y))


def _key(d: Drawing) -> None:
    """Say what colours, lines and letters mean."""
    for y, edge, fill, line, words in (
        (1.5, COARSE, COARSE_PALE, "-", "coarse grid (HSI pixels)"),
        (1.17, FINE, FINE_PALE, "-", "fine grid (MSI pixels)"),
        (0.84, MIXED, MIXED_PALE, "-", "resampling and fusion"),
        (0.51, FINE, WHITE, "--", "residual form only"),
    ):
        d.box(9.05, y, (0.4, 0.22), edge, fill=fill, linestyle=line)
        d.text(9.36, y, words, ha="left", size=7.2)
    for y, words in (
        (1.5, "CLRA: depth in teacher | student"),
        (1.17, "(–: a student never calls it)"),
        (0.84, "B, M: bands; r: ratio of pixel sizes"),
        (0.51, "nf: features; gc: growth"),
        (0.18, "LeakyReLU 0.2 after each first convolution and after conv1 to conv4"),
    ):
        last = y < 0.3
        d.text(8.85 if last else 11.3, y, words, ha="left", size=7.2)


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("network.svg"))
    draw(parser.parse_args().output)


if __name__ == "__main__":
    main()
