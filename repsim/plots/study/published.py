"""Published pairs against a floor, language effects and one language's weight, beside an atlas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from repsim.core.atlas import COLLAPSE, Atlas
from repsim.core.errors import UsageError
from repsim.core.formatting import number
from repsim.core.pair_table import BlockTable, PairTable
from repsim.plots.appearance import FAINT, GREY, INK, PALETTE, Size
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Axes, Drawing, Figure, Numbers, Where
from repsim.plots.study.axes import COLLAPSES, SURVIVES, retention_axis
from repsim.plots.study.features import WEIGHTS, measured_pairs
from repsim.stats.bootstrap import members_of
from repsim.stats.dyads import Relation, member_effects, relation
from repsim.stats.ranks import spearman

#: Similarity that the paper reports, and the distance of which it is held against an atlas.
MEASURE, SHARED = "cka_english", "weight_cosine"
#: CKA from which on a block tells pairs no longer apart.
PLATEAU = 0.995
TEXTS = {"english": "English, both", "in_language": "its own language each",
         "numerals": "numerals, both"}  # fmt: skip


def _caption(info: Numbers) -> str:
    collapsed = int((info.worst < COLLAPSE).sum())
    without = next(one for one in info.leverage if one.language == info.chosen)
    said = [
        f"{collapsed} of {len(info.worst)} pairs keep less than half of what lies between an "
        f"untrained model and the parent in a language (most: {number(info.worst.max())})",
        f"rank correlation of CKA on English and loss {_told(info.whole)}, "
        f"{number(without.without)} over the {without.pairs} pairs without {info.chosen} (open "
        "markers; chosen after looking)",
        f"Pearson correlation after additive effects of languages {_told(info.partial)}",
    ]
    if info.curves:
        said.append(f"CKA by block over {info.block_pairs} pairs: median, least and greatest; "
                    f"shaded where the median on English is {PLATEAU:g} or more")  # fmt: skip
    if info.beside is not None:
        survive = int((info.beside.retention >= COLLAPSE).sum())
        count = len(info.beside.retention)
        said.append(f"beside {count} pairs of the atlas, of which {survive} survive, by the "
                    "same definitions of retention and of collapse")  # fmt: skip
    return "; ".join(said) + "."


def _told(found: Relation) -> str:
    return (f"{number(found.value)} [{number(found.low)}, {number(found.high)}], p "
            f"{number(found.p, 3)} by relabelling models")  # fmt: skip


def published_info(
    pairs: PairTable, *, blocks: BlockTable | None = None, atlas: Atlas | None = None,
    chosen: str = "rus",
) -> Numbers:  # fmt: skip
    """Published pairs: retention, similarity, loss, one language's weight, and an atlas."""
    similarity, loss = pairs[MEASURE], pairs.loss
    if not (np.isfinite(similarity) & np.isfinite(loss)).all() or len(loss) < 4:
        raise UsageError(f"every pair needs a loss and a value of {MEASURE}, and four pairs are "
                         "the least")  # fmt: skip
    names = pairs.pairs
    leverage = leverage_of(similarity, loss, names)
    whole = relation(similarity, loss, names)
    if chosen not in {one.language for one in leverage}:
        chosen = max(leverage, key=lambda one: abs(one.without - whole.value)).language
    members = members_of(names)
    rest = tuple(v - member_effects(v, members) for v in (similarity, loss))
    curves = _curves(blocks) if blocks is not None else ()
    count = len(set(zip(blocks["a"], blocks["b"], strict=True))) if blocks is not None else 0
    return Numbers(
        _caption,
        retention=pairs.both,
        similarity=similarity,
        loss=loss,
        marked=np.array([chosen in pair for pair in names]),
        chosen=chosen,
        rest=(rest[0], rest[1]),
        whole=whole,
        partial=relation(similarity, loss, names, partial=True),
        leverage=leverage,
        curves=curves,
        block_pairs=count,
        cosine=pairs[SHARED],
        worst=pairs.worst,
        beside=_beside(atlas),
        title=f"What {len(loss)} published pairs show",
        note=("brackets: 95 % over models",),
    )


def leverage_of(
    similarity: np.ndarray, loss: np.ndarray, pairs: Sequence[tuple[str, str]]
) -> tuple[Numbers, ...]:
    """Rank correlation over the pairs without each language, from the least on."""
    found = []
    for language in sorted({name for pair in pairs for name in pair}):
        kept = np.array([language not in pair for pair in pairs])
        value = spearman(similarity[kept], loss[kept])
        found.append(Numbers(language=language, without=value, pairs=int(kept.sum())))
    return tuple(sorted(found, key=lambda one: one.without))


def _curves(blocks: BlockTable) -> tuple[Numbers, ...]:
    curves = []
    for text, label in TEXTS.items():
        rows = blocks.where(text=text)
        if len(rows):
            places = np.unique(rows["block"])
            groups = [rows["cka"][rows["block"] == place] for place in places]
            middle, low, high = (np.array([of(g) for g in groups])
                                 for of in (np.median, np.min, np.max))  # fmt: skip
            curves.append(Numbers(text=label, middle=middle, low=low, high=high))
    return tuple(curves)


def _beside(atlas: Atlas | None) -> Numbers | None:
    if atlas is None:
        return None
    found = measured_pairs(atlas, SHARED)
    return Numbers(cosine=np.array([pair.values[SHARED] for pair in found]),
                   retention=np.array([pair.outcome.worst for pair in found]))  # fmt: skip


def draw_published(info: Numbers, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """Six panels, five where there is no similarity by block or no atlas."""
    panels: list[tuple[str, Callable[[Axes, Numbers], None]]] = [
        ("Every pair against a floor", _draw_floor), ("Similarity and loss", _draw_loss),
        ("Without each language", _draw_leverage), ("After language effects", _draw_rest),
    ]  # fmt: skip
    panels += [("CKA by block", _draw_blocks)] if info.curves else []
    panels += [("Beside a continuum", _draw_beside)] if info.beside is not None else []
    columns = 3 if size == "wide" else 2
    height = 2.05 * -(-len(panels) // columns)
    axes = fig.frames(info, ax, len(panels), columns, size, height)
    for frame, (title, draw) in zip(axes, panels, strict=True):
        draw(frame, info)
        frame.set_title(title, loc="left", fontsize=8.5, fontweight="bold")
        frame.tick_params(labelsize=7)
        for axis in (frame.xaxis, frame.yaxis):
            axis.label.set_fontsize(7.5)
    return fig.finish(axes)


def _points(marked: bool) -> dict[str, Any]:
    face = "white" if marked else COLLAPSES
    return {"linestyle": "", "marker": "o", "markersize": 3.4, "color": COLLAPSES,
            "markerfacecolor": face, "markeredgewidth": 0.8}  # fmt: skip


def _scatter(ax: Axes, x: np.ndarray, y: np.ndarray, info: Numbers) -> None:
    for marked in (False, True):
        rows = info.marked == marked
        ax.plot(x[rows], y[rows], **_points(marked))


def _draw_floor(ax: Axes, info: Numbers) -> None:
    order = np.argsort(info.worst)
    for side in range(info.retention.shape[1]):
        ax.plot(np.arange(1, len(order) + 1), info.retention[order, side], **_points(False))
    retention_axis(ax, np.append(info.retention[np.isfinite(info.retention)], 1.0), "y")
    ax.set(xlabel="pair, by its worst language", ylabel="retention, both languages")


def _draw_loss(ax: Axes, info: Numbers) -> None:
    _scatter(ax, info.similarity, info.loss, info)
    ax.set(xlabel="CKA on English, mean over blocks", ylabel="score of the merge − parents")
    ax.text(0.98, 0.03, f"rho {number(info.whole.value)}\nopen: with {info.chosen}",
            transform=ax.transAxes, ha="right", fontsize=7, color=GREY)  # fmt: skip


def _draw_leverage(ax: Axes, info: Numbers) -> None:
    ax.axvline(0, color=FAINT, linewidth=0.8)
    ax.axvline(info.whole.value, color=GREY, linewidth=0.9, linestyle=(0, (3.5, 2)))
    for place, one in enumerate(info.leverage):
        ax.plot([one.without], [place], **_points(one.language == info.chosen))
    ax.set_yticks(range(len(info.leverage)), [one.language for one in info.leverage])
    ax.set_ylim(len(info.leverage) - 0.5, -0.5)
    ax.set_xlabel("rho without it (dashed: all pairs)")


def _draw_rest(ax: Axes, info: Numbers) -> None:
    for line in (ax.axhline, ax.axvline):
        line(0, color=FAINT, linewidth=0.8)
    _scatter(ax, info.rest[0], info.rest[1], info)
    ax.set(xlabel="CKA on English, rest", ylabel="score − parents, rest")
    ends = f"[{number(info.partial.low)}, {number(info.partial.high)}]"
    ax.text(0.98, 0.03, f"r {number(info.partial.value)} {ends}", transform=ax.transAxes,
            ha="right", fontsize=7, color=GREY)  # fmt: skip


def _draw_blocks(ax: Axes, info: Numbers) -> None:
    for curve, colour in zip(info.curves, PALETTE, strict=False):
        places = np.arange(1, len(curve.middle) + 1)
        ax.fill_between(places, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(places, curve.middle, color=colour, linewidth=1.4, label=curve.text)
    flat = np.flatnonzero(info.curves[0].middle >= PLATEAU)
    if len(flat):
        ax.axvspan(flat[0] + 0.5, flat[-1] + 1.5, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    ax.set(xlabel="block", ylabel="biased linear CKA", ylim=(0, 1.04))
    ax.legend(fontsize=6.5, loc="lower right", handlelength=1.2, borderpad=0.2)


def _draw_beside(ax: Axes, info: Numbers) -> None:
    assert info.beside is not None
    lives = info.beside.retention >= COLLAPSE
    looks = (("ours, survives", lives, SURVIVES, "o"), ("ours, collapses", ~lives, COLLAPSES, "X"))
    for label, rows, colour, shape in looks:
        ax.plot(info.beside.cosine[rows], info.beside.retention[rows], linestyle="", marker=shape,
                markersize=3, color=colour, alpha=0.7, label=label, markeredgewidth=0)  # fmt: skip
    ax.plot(info.cosine, info.worst, linestyle="", marker="s", markersize=2.6, color=INK,
            label="published", markeredgewidth=0)  # fmt: skip
    retention_axis(ax, np.append(info.beside.retention, info.worst), "y")
    ax.set(xlabel=WEIGHTS[SHARED], ylabel="retention, worst language")
    ax.legend(fontsize=6.5, handlelength=0.8, borderpad=0.2, loc="lower right",
              bbox_to_anchor=(0.97, 0.12))  # fmt: skip


PUBLISHED = Figure("published_pairs", "pairs", published_info, draw_published)
