"""A figure's header, axes and settled layout; matplotlib is imported when something is drawn."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from repsim.core.errors import UsageError
from repsim.core.formatting import singular
from repsim.plots.appearance import GREY, INK, LABEL, Size, canvas, style, width_of
from repsim.plots.names import shortened

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.figure import Figure, FigureBase
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

TITLE_SIZE = 10.0
READING_SIZE = 8.5
NOTE_SIZE = 7.5
#: White space around a figure, inches.
MARGIN = 0.07
#: Axes of the caller that a figure was drawn into.
_GIVEN: weakref.WeakSet[Any] = weakref.WeakSet()


def is_given(axes: Sequence[Axes]) -> bool:
    """Whether these are the caller's axes, whose figure is laid out and headed by the caller."""
    return axes[0] in _GIVEN


def figure_of(ax: Axes) -> Figure:
    """The top figure of an axes."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise UsageError("the axes to draw into belongs to no figure")
    return figure


def renderer_of(figure: Figure) -> RendererAgg:
    """A renderer to measure text with."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    return canvas.get_renderer()


def text_size(
    figure: Figure, string: str, size: float, weight: str = "normal"
) -> tuple[float, float]:
    """Width and height of a text in inches."""
    from matplotlib import rcParams

    fonts = (*rcParams["font.family"], *rcParams["font.sans-serif"])
    return _text_size(string, size, weight, figure.dpi, fonts)


@functools.lru_cache(maxsize=4096)
def _text_size(
    string: str, size: float, weight: str, dpi: float, fonts: tuple[str, ...]
) -> tuple[float, float]:  # fmt: skip
    """Size of a text at some resolution; `fonts` are those of the settings in force."""
    from matplotlib.text import Text

    ruler = _ruler(dpi)
    text = Text(0, 0, string, fontsize=size, fontweight=weight)
    text.set_figure(ruler)
    box = text.get_window_extent(renderer_of(ruler))
    return box.width / dpi, box.height / dpi


@functools.lru_cache(maxsize=8)
def _ruler(dpi: float) -> Figure:
    """A figure to measure text on."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    return FigureCanvasAgg(Figure(dpi=dpi)).figure


def wrap_to_width(
    figure: Figure, pieces: Sequence[str], width: float,
    *, size: float, weight: str = "normal", joint: str = " ",
) -> list[str]:  # fmt: skip
    """Set pieces into lines of at most `width` inches; what is too long alone breaks further."""

    def fits(string: str) -> bool:
        return text_size(figure, string, size, weight)[0] <= width

    lines: list[str] = []
    for piece in pieces:
        if lines and fits(f"{lines[-1]}{joint}{piece}"):
            lines[-1] += joint + piece
        elif fits(piece) or len(piece) < 2:
            lines.append(piece)
        elif " " in piece:
            lines += wrap_to_width(figure, piece.split(), width, size=size, weight=weight)
        else:
            lines += _broken(piece, fits)
    return lines


def _broken(word: str, fits: Callable[[str], bool]) -> list[str]:
    """A word in pieces that fit, broken after a hyphen, slash or underscore where there is one."""
    rows = []
    while not fits(word) and len(word) > 1:
        end = max(1, next(k for k in range(len(word) - 1, 0, -1) if k == 1 or fits(word[:k])))
        natural = max(word.rfind(mark, 0, end) + 1 for mark in "-_/.")
        cut = natural if natural > end // 3 else end
        rows.append(word[:cut])
        word = word[cut:]
    return [*rows, word]


def new_figure(
    width: float, height: float, title: str, note: Sequence[str] = (),
    *, reading: str = "", key: Sequence[Artist] = (),
) -> Figure:  # fmt: skip
    """A figure of so many inches below its header: title, reading, grey note (flush right), key."""
    from repsim.plots.drawing.styled import StyledFigure

    figure = StyledFigure(figsize=(width, height), layout="constrained")
    room = width - 2 * MARGIN
    lines: list[tuple[str, float, dict[str, Any]]] = []  # text, inches from the top, options
    down = MARGIN
    heading = wrap_to_width(figure, title.split(" "), room, size=TITLE_SIZE, weight="bold")
    note = [singular(piece) for piece in note]
    joined = " · ".join(note)
    taken = (
        text_size(figure, title, TITLE_SIZE, "bold")[0] + text_size(figure, joined, NOTE_SIZE)[0]
    )
    beside = bool(note) and len(heading) == 1 and taken + 0.25 <= room
    if beside:
        lowered = down + (TITLE_SIZE - NOTE_SIZE) * 0.8 / 72
        right = {"x": width - MARGIN, "ha": "right"}
        lines.append((joined, lowered, {"fontsize": NOTE_SIZE, "color": GREY, **right}))
    below = [] if beside else wrap_to_width(figure, note, room, size=NOTE_SIZE, joint=" · ")
    read = wrap_to_width(figure, reading.split(), room, size=READING_SIZE)
    for rows, size, colour in (
        (heading, TITLE_SIZE, INK),
        (read, READING_SIZE, INK),
        (below, NOTE_SIZE, GREY),
    ):
        weight = "bold" if rows is heading else "normal"
        for row in rows:
            options = {"fontsize": size, "color": colour, "fontweight": weight}
            lines.append((row, down, {"x": MARGIN, **options}))
            down += size * 1.42 / 72
    legend = _key(figure, key, room) if key else None
    at_key = down + 0.02
    if legend is not None:
        down += legend.get_window_extent(renderer_of(figure)).height / figure.dpi + 0.06
    down += 0.05

    total = height + down
    if (asked := canvas().figsize) is not None:
        total = float(asked[1])
        if total < down + 0.6:
            raise UsageError(
                f"a figure of {width:g} by {total:g} inches has no room below its heading",
                hint=f"give it a height of at least {down + 0.6:.1f} inches, or title='' ",
            )
    figure.set_size_inches(width, total)
    for string, at, written in lines:
        figure.text(written.pop("x") / width, 1 - at / total, string, va="top", **written)
    if legend is not None:
        legend.set_bbox_to_anchor((MARGIN / width, 1 - at_key / total))
    _engine(figure).set(rect=(0.0, 0.0, 1.0, 1 - down / total))
    return figure


def _engine(figure: Figure) -> ConstrainedLayoutEngine:
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = figure.get_layout_engine()
    if not isinstance(engine, ConstrainedLayoutEngine):
        raise TypeError("the figure has no constrained layout any more")
    return engine


def keep_left(axes: Sequence[Axes], inches: float) -> None:
    """Lay out within that many inches from the left edge, so that square cells stay together."""
    if is_given(axes):
        return
    figure = figure_of(axes[0])
    engine = _engine(figure)
    left, bottom, width, height = engine.get()["rect"]
    share = inches / float(figure.get_size_inches()[0])
    engine.set(rect=(left, bottom, min(width, share), height))


def body_height(figure: Figure) -> float:
    """Inches below the header of a `new_figure`."""
    return float(figure.get_size_inches()[1]) - header_height(figure)


def header_height(figure: Figure) -> float:
    """Inches that the header of a `new_figure` takes."""
    return (1 - _engine(figure).get()["rect"][3]) * float(figure.get_size_inches()[1])


def _key(figure: Figure, handles: Sequence[Artist], room: float) -> Legend:
    """A legend of as few rows as fit into `room` inches."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles=list(handles), loc="upper left", ncols=columns, borderpad=0.0,
            borderaxespad=0.0, handlelength=1.6, handletextpad=0.5, columnspacing=1.4,
            labelspacing=0.25,
        )  # fmt: skip
        legend.set_in_layout(False)
        if legend.get_window_extent(renderer_of(figure)).width / figure.dpi <= room:
            break
        if columns > 1:
            legend.remove()
    return legend


def settle(figure: Figure) -> None:
    """Run the layout once, so that positions can be read."""
    with style():
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.execute(figure)
        for ax in figure.axes:
            ax.apply_aspect()


def freeze(figure: Figure) -> None:
    """Run the layout until it stands still (square cells give it margins, so once is too few)."""
    square = any(ax.get_aspect() != "auto" for ax in figure.axes)
    for _ in range(3 if square else 1):
        before = [ax.get_position().bounds for ax in figure.axes]
        settle(figure)
        after = [ax.get_position().bounds for ax in figure.axes]
        if all(math.dist(a, b) < 5e-4 for a, b in zip(before, after, strict=True)):
            break
    figure.set_layout_engine("none")


def fitted(
    figure: Figure, string: str, room: float,
    *, size: float = 8.5, weight: str = "normal", lines: int = 2,
) -> str:  # fmt: skip
    """A label in at most that many lines of `room` inches, its middle left out if it must be."""
    string = string.replace(" %", "\xa0%")  # no line begins with a unit
    for length in range(len(string), 3, -2):
        words = shortened(string, length).split(" ")
        rows = wrap_to_width(figure, words, room, size=size, weight=weight)
        if len(rows) <= lines:
            return "\n".join(rows)
    return string[:3]


def panel_axes(figure: FigureBase, count: int, columns: int, **options: Any) -> list[Axes]:
    """As many axes as there are panels, row by row; places that are left over stay empty."""
    rows = math.ceil(count / columns)
    grid = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for spare in grid[count:]:
        spare.remove()
    return list(grid[:count])


def columns_of(count: int, size: Size, wide: int = 3, medium: int = 2) -> int:
    """Panels beside each other."""
    return min(count, {"single": 1, "medium": medium}.get(size, wide))


def title_panel(ax: Axes, title: str, room: float, y: float | None = None) -> None:
    """Title a panel about `room` inches wide; in one axes of a caller, the figure's title."""
    if ax in _GIVEN:
        if y is None and _composed_title(ax):
            return
        room = max(inches_of(ax)[0], 0.8)
    ax.set_title(fitted(figure_of(ax), title, room, size=9.0, weight="bold"), loc="left", y=y)


def name_axes(axes: Sequence[Axes], x: str, y: str, height: float) -> None:
    """Name the axes that all panels share, once; `height` is that of the panels in inches."""
    figure = figure_of(axes[0])
    if len(axes) > 1 and not is_given(axes):
        width, total = (float(side) for side in figure.get_size_inches())
        options: dict[str, Any] = {"fontsize": 8.5, "color": LABEL, "ma": "center"}
        middle = (1 - header_height(figure) / total) / 2
        figure.supxlabel(fitted(figure, x, width - 0.8), **options)
        room = min(height, body_height(figure)) - 0.3
        figure.supylabel(fitted(figure, y, room), y=middle, **options)
        return
    for ax in axes:
        place = ax.get_subplotspec()
        tall = inches_of(ax)[1] if is_given(axes) else body_height(figure) - 0.6
        if place is None or len(axes) == 1 or place.is_last_row():
            ax.set_xlabel(x)
        if place is None or len(axes) == 1 or place.is_first_col():
            ax.set_ylabel(fitted(figure, y, tall))


def frames(
    info: Any, ax: Any, count: int, columns: int, size: Size, height: float,
    *, key: Sequence[Artist] = (), **grid: Any,
) -> list[Axes]:  # fmt: skip
    """One axes per panel: of a new figure, or those that the caller gave."""
    from matplotlib.figure import SubFigure

    if ax is None:
        figure = new_figure(width_of(size), height, info.title, info.note, key=key)
        return panel_axes(figure, count, columns, **grid)
    if isinstance(ax, SubFigure):
        given = panel_axes(ax, count, columns, **grid)
    else:
        given = list(ax) if isinstance(ax, Iterable) else [ax]
    if len(given) != count:
        axes = "one" if len(given) == 1 else len(given)
        raise UsageError(
            f"this figure has {count} panels and does not fit into {axes} axes",
            hint=f"give a SubFigure or a list of {count} axes, or choose fewer panels",
        )
    _GIVEN.update(given)
    if isinstance(ax, SubFigure) and count > 1:
        room = float(ax.bbox.width) / figure_of(given[0]).dpi
        heading = fitted(figure_of(given[0]), info.title, room, size=TITLE_SIZE, weight="bold")
        ax.suptitle(heading, fontsize=TITLE_SIZE, fontweight="bold")
    elif count == 1:
        title_axes(given[0], info.title)
    if key:
        given[0].legend(handles=list(key))
    return given


def title_axes(ax: Axes, title: str) -> None:
    """Title an axes of the caller, broken so that it does not reach into its neighbour."""
    from matplotlib import rcParams

    size = TITLE_SIZE
    if isinstance(rcParams["axes.titlesize"], int | float):
        size = float(rcParams["axes.titlesize"])
    written = ax.set_title(title, loc="left", fontsize=size)
    written.set_gid("composed-title")
    _break_title(ax, written)


def _break_title(ax: Axes, written: Text) -> None:
    """Break a title to the width that its axes has by now."""
    pieces, room = written.get_text().split(), max(inches_of(ax)[0], 0.8)
    size = float(written.get_fontsize())
    lines = wrap_to_width(figure_of(ax), pieces, room, size=size, weight="bold")
    written.set_text("\n".join(lines))


def _composed_title(ax: Axes) -> Text | None:
    found = (child for child in ax.get_children() if child.get_gid() == "composed-title")
    return cast("Text | None", next(found, None))


def finish(axes: Sequence[Axes]) -> Figure:
    """Keep the layout of a figure of our own; only read that of the caller's."""
    figure = figure_of(axes[0])
    if not is_given(axes):
        freeze(figure)
        return figure
    settle(figure)
    for ax in axes:
        if (title := _composed_title(ax)) is not None:
            _break_title(ax, title)
    return figure


def key_of(options: Mapping[str, Mapping[str, Any]]) -> list[Line2D]:
    """Named lines or markers for a key: label -> options of a line."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], label=label, **those) for label, those in options.items()]


def inches_of(ax: Axes) -> tuple[float, float]:
    """Width and height of an axes."""
    box = ax.get_window_extent()
    return box.width / figure_of(ax).dpi, box.height / figure_of(ax).dpi
