"""Figures on dark paper: every ink with its lightness turned round, colour maps as they are."""

from __future__ import annotations

import colorsys
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim.plots.appearance import GRID, LABEL, ON_CELLS, TICK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: White turned round: the paper of a dark page.
DARK_PAPER = "#161b22"
#: Lightness of the brightest tint and of black after they were turned round.
_PAPER, _BRIGHTEST = 0.11, 0.95
_INK = re.compile(r"(fill|stroke): (#[0-9a-f]{6})")


def turned(colour: str) -> str:
    """A colour "#RRGGBB" for dark paper: same hue, lightness turned round; cells keep theirs."""
    if colour.upper() in ON_CELLS:
        return colour
    if colour.upper() == "#FFFFFF":
        return DARK_PAPER
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    # A tint of white counts as fully saturated; of dark paper it is to be a tint too.
    saturation *= min(1.0, 4 * (1 - light))
    light = _PAPER + (_BRIGHTEST - _PAPER) * (1 - light)
    channels = colorsys.hls_to_rgb(hue, light, saturation)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)


def following_the_reader(svg: str) -> str:
    """An SVG that turns its inks where the reader's page or system is dark."""
    inks = sorted(set(_INK.findall(svg)))
    rules = [f'[style*="{kind}: {ink}"]{{{kind}:{turned(ink)}!important}}' for kind, ink in inks]
    style = f"<style>@media (prefers-color-scheme:dark){{{''.join(rules)}}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda head: f"{head.group(1)}\n{style}", svg, count=1)


def turn_figure(figure: Figure) -> None:
    """Turn the inks of everything that was drawn, and of ticks still to be made."""
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

    drawn = figure.findobj()
    drawn += [part for artist in drawn for name in ("arrow_patch", "_bbox_patch")
              if (part := getattr(artist, name, None)) is not None]  # fmt: skip
    turn: list[tuple[Any, Any]] = []
    for artist in drawn:
        if isinstance(artist, ScalarMappable) and artist.get_array() is not None:
            continue
        plain = not hasattr(artist, "get_facecolor")
        kinds = _OF_LINES if plain else ("facecolor", "edgecolor")
        turn += [(getattr(artist, f"set_{kind}"), _turned(getattr(artist, f"get_{kind}")()))
                 for kind in kinds if hasattr(artist, f"set_{kind}")]  # fmt: skip
    for artist in drawn:
        if isinstance(artist, Axes):
            artist.tick_params(
                color=turned(TICK), labelcolor=turned(LABEL), grid_color=turned(GRID)
            )
    for put, colour in turn:
        put(colour)


_OF_LINES = ("color", "markerfacecolor", "markeredgecolor")


def _turned(colours: Any) -> Any:
    """One colour of matplotlib, or `[n, 4]`, with its opacity."""
    from matplotlib.colors import to_hex, to_rgb, to_rgba_array

    if isinstance(colours, str) and colours in ("none", "auto"):
        return colours
    made = [(*to_rgb(turned(to_hex(row))), row[3]) for row in to_rgba_array(colours)]
    return made if np.ndim(colours) == 2 else made[0]
