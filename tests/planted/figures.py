"""What every figure must keep to: it is not blank, and no text is cut off or covers another."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@dataclasses.dataclass(frozen=True)
class DrawnText:
    """A text that was rendered, with its box in pixels: x0, y0, x1, y1."""

    string: str
    box: tuple[float, float, float, float]

    def covers(self, other: DrawnText, slack: float) -> bool:
        """Whether the two boxes overlap by more than `slack` pixels in both directions."""
        wide = min(self.box[2], other.box[2]) - max(self.box[0], other.box[0])
        tall = min(self.box[3], other.box[3]) - max(self.box[1], other.box[1])
        return wide > slack and tall > slack


@contextlib.contextmanager
def _recorded(texts: list[Text]) -> Iterator[None]:
    """Note every text while it is drawn: tick labels outside the view, for one, never are."""
    original = Text.draw

    def draw(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            texts.append(self)
        original(self, renderer)

    Text.draw = draw  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Text.draw = original  # type: ignore[method-assign]


def drawn_texts(figure: Figure) -> list[DrawnText]:
    """Render a figure, and list the texts that it shows."""
    canvas = FigureCanvasAgg(figure)
    texts: list[Text] = []
    with _recorded(texts):
        canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    return [
        DrawnText(text.get_text(), (box.x0, box.y0, box.x1, box.y1))
        for text, box in zip(texts, boxes, strict=True)
    ]


def check_figure(figure: Figure, slack: float = 1.0) -> None:
    """Render a figure and check it."""
    texts = drawn_texts(figure)
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]
    width, height = figure.bbox.size
    for i, text in enumerate(texts):
        x0, y0, x1, y1 = text.box
        if min(x0, y0, width - x1, height - y1) < -slack:
            raise AssertionError(f"cut off: {text.string!r}")
        for other in texts[:i]:
            if text.covers(other, slack):
                raise AssertionError(f"overlap: {text.string!r} and {other.string!r}")
    if pixels.min() == pixels.max():
        raise AssertionError("blank")
