"""What a figure declares: the numbers (`info`) and the drawing (`draw`) of one figure."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from repsim.core.errors import UsageError
from repsim.plots.appearance import Canvas, Theme, drawn_on, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from matplotlib.figure import SubFigure

    #: Where a figure is drawn: nowhere yet, an axes, one for each panel, or a part of a figure.
    Where = Axes | Sequence[Axes] | SubFigure | None
else:  # names of types: matplotlib is imported when something is drawn
    Axes = Drawing = Where = Any

__all__ = ["Axes", "Drawing", "Figure", "Info", "Titled", "Where"]
#: Options of every figure as a whole: name, default, type.
_WHOLE = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, default, kind in (
        ("title", None, "str | None"),
        ("figsize", None, "tuple[float, float] | None"),
        ("theme", "repsim", "Theme"),
    )
]
_DRAWN = {
    "ax": "Axes to draw into, a list of one for each panel, or a SubFigure; a figure of its own "
    "is made if left out.",
    "size": '"single" (3.4 in), "medium" (5 in) or "wide" (7 in).',
    "limits": "Ends of the axis of values, instead of those that the values give.",
    "cmap": "Name of a colour map of matplotlib.",
    "title": "Heading instead of the one that is made.",
    "figsize": "Width and height in inches, heading included, instead of those that fit.",
    "theme": '"dark" for dark paper; a style sheet of matplotlib or its settings, over those of '
    'repsim; "yours" leaves the settings that are in force.',
}


class Info(Protocol):
    """The numbers and words of one figure, without matplotlib."""

    def caption(self) -> str:
        """What is shown, n, interval, how to read it."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Titled:
    """Heading of a figure, and the pieces of the grey line beside it: the end of every `Info`."""

    title: str
    note: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Figure:
    """One kind of figure. Calling it draws: `figure(table, **options)`.

    Its signature is that of `info`, followed by what `draw` takes (`ax`, `size` ...), `title`,
    `figsize` and `theme`, so that `help()` and `inspect.signature` show every option.

    Args:
        name: Name in the registry.
        reads: The noun that `info` takes first: "similarity", "evaluation", "atlas" ...
        info: `info(table, ...options...)` gives the numbers; imports no matplotlib.
        draw: `draw(info, *, ax=None, size=...)` gives the `matplotlib.figure.Figure`.

    Example:
        >>> from repsim.plots import FIGURES
        >>> from repsim.testing.tables import synthetic_table
        >>> heatmap, table = FIGURES["heatmap"], synthetic_table(languages=("eng_Latn",))
        >>> heatmap.info(table, measure="cka").panels[0].values.shape
        (13, 7)
        >>> type(heatmap(table, measure="cka", size="single")).__mro__[1]
        <class 'matplotlib.figure.Figure'>
    """

    name: str
    reads: str
    info: Callable[..., Any]
    draw: Callable[..., Drawing]

    def __post_init__(self) -> None:
        signature, drawn = inspect.signature(self.info), inspect.signature(self.draw)
        more = [*list(drawn.parameters.values())[1:], *_WHOLE]
        parameters = [*signature.parameters.values(), *more]
        result = drawn.return_annotation
        made = signature.replace(parameters=parameters, return_annotation=result)
        object.__setattr__(self, "__signature__", made)
        object.__setattr__(self, "draw", style()(self.draw))
        object.__setattr__(self, "__doc__", _documented(self.info, [p.name for p in more]))

    def __call__(
        self,
        table: Any,
        *,
        title: str | None = None,
        figsize: tuple[float, float] | None = None,
        theme: Theme = "repsim",
        **options: Any,
    ) -> Drawing:
        """The figure, drawn from a table."""
        whole = "figsize" if figsize is not None else "theme" if theme == "dark" else ""
        if whole and options.get("ax") is not None:
            raise UsageError(
                f"{whole} is that of a figure of its own, and ax belongs to one",
                hint="set it for the figure of ax, or leave out one of the two",
            )
        drawn = {name: options.pop(name) for name in self._drawing() if name in options}
        info = self.info(table, **options)
        if title is not None:
            info = dataclasses.replace(info, title=title)
        with drawn_on(Canvas(figsize, theme)):
            figure = self.draw(info, **drawn)
        if theme == "dark":
            from repsim.plots.drawing.dark import turn_figure

            turn_figure(figure)
        return figure

    def of(self, table: Any) -> Callable[..., Drawing]:
        """A function that draws this table, with the signature and help of the figure."""
        whole = inspect.signature(self)

        @functools.wraps(self.info)
        def figure(**options: Any) -> Drawing:
            return self(table, **options)

        figure.__name__ = figure.__qualname__ = self.name
        figure.__doc__ = re.sub(r"\n    table: .*?(?=\n    \w)", "", self.__doc__ or "", flags=re.S)
        figure.__signature__ = whole.replace(  # type: ignore[attr-defined]
            parameters=list(whole.parameters.values())[1:]
        )
        return figure

    def _drawing(self) -> list[str]:
        return list(inspect.signature(self.draw).parameters)[1:]


def _documented(info: Callable[..., Any], drawn: list[str]) -> str:
    """The docstring of `info` without its example, `ax` and `size` among the arguments."""
    text = re.split(r"\n\n(?:Example|Returns):", inspect.getdoc(info) or "")[0]
    added = "".join(f"\n    {name}: {_DRAWN[name]}" for name in drawn if name in _DRAWN)
    head, raises, errors = text.partition("\n\nRaises:")
    returns = "\n\nReturns:\n    The `matplotlib.figure.Figure` (that of `ax` if one was given)."
    return head + added + returns + raises + errors
