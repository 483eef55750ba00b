"""What a figure declares: the numbers (`info`) and the drawing (`draw`) of one figure."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
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

__all__ = ["Axes", "Drawing", "Figure", "Info", "Numbers", "Where"]
#: Options of every figure as a whole: name, default, type.
_WHOLE = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
    for name, default, kind in (
        ("title", None, "str | None"),
        ("figsize", None, "tuple[float, float] | None"),
        ("theme", "repsim", "Theme"),
    )
]


@functools.cache
def _options() -> dict[str, str]:
    """What options mean, by name."""
    import yaml

    file = resources.files("repsim.plots").joinpath("options.yaml")
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")))


class Info(Protocol):
    """The numbers and words of one figure, without matplotlib."""

    def caption(self) -> str:
        """What is shown, n, interval, how to read it."""
        ...


class Numbers(types.SimpleNamespace):
    """What a figure or a part of it shows: numbers by name, `title`, grey `note`, a caption."""

    note: Any = ()

    def __init__(self, words: Callable[[Numbers], str] | None = None, /, **numbers: Any) -> None:
        super().__init__(**numbers)
        self._words = words

    def caption(self) -> str:
        """What is shown, n, interval, how to read it."""
        return self._words(self) if self._words else ""

    def replaced(self, **numbers: Any) -> Numbers:
        """A copy with some numbers replaced."""
        made = copy.copy(self)
        vars(made).update(numbers)
        return made


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
        options: What an option means, where it is not what it means in other figures.

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
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        signature, drawn = inspect.signature(self.info), inspect.signature(self.draw)
        more = [*list(drawn.parameters.values())[1:], *_WHOLE]
        parameters = [*signature.parameters.values(), *more]
        result = drawn.return_annotation
        made = signature.replace(parameters=parameters, return_annotation=result)
        object.__setattr__(self, "__signature__", made)
        object.__setattr__(self, "draw", style()(self.draw))
        object.__setattr__(self, "__doc__", _documented(self.info, parameters, self.options))

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
            info = copy.copy(info)
            object.__setattr__(info, "title", title)  # also of a frozen one of a figure of yours
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
        figure.__doc__ = (self.__doc__ or "").replace(f"\n    table: {_options()['table']}", "")
        figure.__signature__ = whole.replace(  # type: ignore[attr-defined]
            parameters=list(whole.parameters.values())[1:]
        )
        return figure

    def _drawing(self) -> list[str]:
        return list(inspect.signature(self.draw).parameters)[1:]


def _documented(
    info: Callable[..., Any], parameters: Sequence[inspect.Parameter], own: Mapping[str, str]
) -> str:
    """A docstring of the figure: what it shows, and what each option means."""
    known = _options() | dict(own)
    parts = [(inspect.getdoc(info) or "").partition("\n\n")[0], "", "Args:"]
    parts += [f"    {p.name}: {known[p.name]}" for p in parameters if p.name in known]
    parts += ["", "Returns:"]
    parts += ["    The `matplotlib.figure.Figure` (that of `ax` if one was given).", "", "Raises:"]
    return "\n".join([*parts, "    UsageError: Nothing to draw, or more than a figure holds."])
