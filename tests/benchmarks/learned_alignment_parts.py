"""Where the loss of a mean lies: each part of two aligned models averaged alone.

    OMP_NUM_THREADS=1 python tests/benchmarks/learned_alignment_parts.py OUT

Takes the means that `learned_alignment.py` left in OUT. A parent in whose stead one part (the
embedding, attention or MLP of a block, the head) is the mean of both keeps some of its own
language; what it loses is what averaging that part alone costs. Writes
`figures/learned_alignment/parts.csv`; `learned_alignment_report.py` draws it.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from learned_alignment import State, Study
from learned_alignment_cases import CASES, DISTINCT, FIGURES, Pair, Variant, key_of

from repsim.core.formatting import number
from repsim.core.table import Table
from repsim.evaluation.retention import judge
from repsim.merging.align import align, build_model
from repsim.merging.tensors import token_tensors
from repsim.models.causal import load_causal_lm
from repsim.plots.appearance import FAINT, Size, line_marker, looks
from repsim.plots.drawing import figure as fig
from repsim.plots.spec import Drawing, Figure, Where

#: Variant -> what the figure calls it.
WAYS = {
    Variant("none"): "as they are",
    Variant("orthogonal"): "by rotation",
    Variant("learned", 100_000): "by maps",
    Variant("learned", 100_000, rows="counted"): "by maps, rows by counts",
}
WHOLE = "all"


class PartTable(Table):
    """One part of one parent averaged with that of the other."""

    SCHEMA, STEM = "repsim-benchmark/learned-parts/1", "parts"
    COLUMNS: ClassVar = {
        "case": ("string", "kind of pair"),
        "pair": ("string", "models"),
        "way": ("string", "how they were aligned"),
        "part": ("string", "what is averaged; the rest is the parent's own"),
        "parent": ("string", "whose language is scored"),
        "lost": ("float", "share of what the parent keeps over unigrams that is lost"),
    }


def part_of(name: str) -> str:
    """The part that a tensor of a Llama belongs to, norms with what they feed."""
    block = re.match(r"model\.layers\.(\d+)\.(.*)", name)
    if block is None:
        return "embedding" if "embed" in name else "head"
    first = block[2].startswith(("self_attn", "input_layernorm"))
    return f"{'attention' if first else 'MLP'} {int(block[1]) + 1}"


def ends(study: Study, pair: Pair, how: Variant, folder: Path) -> tuple[Any, State, State]:
    """Both models in the coordinates of the mean that lies in a folder, heads untied."""
    a, b = (study.model(name).model for name in pair)
    states = dict(a.state_dict()), dict(b.state_dict())
    if how.start == "none":
        config = copy.deepcopy(a.config)
        config.tie_word_embeddings = False
        return config, *states
    found = align(states[0], [states[1]], a.config, method="orthogonal", check=False)
    if how.start == "orthogonal":
        return found.config, *found.states
    middle = load_causal_lm(folder, device="cpu").model.state_dict()
    one, shares = found.states[0], by_rows(one_of(study.shares(pair, how), 1), found.states[0])
    return found.config, one, {n: one[n] + (middle[n] - one[n]) / shares[n] for n in one}


def one_of(shares: torch.Tensor | None, model: int) -> torch.Tensor | None:
    """Shares of one model."""
    return None if shares is None else shares[model]


def by_rows(share: torch.Tensor | None, names: State) -> dict[str, torch.Tensor]:
    """Share of the other model in each tensor of a mean: that of each row in rows of tokens."""
    rows = token_tensors(names) if share is not None else frozenset()
    half = torch.tensor(0.5)
    return {n: half if n not in rows else share.float()[:, None] for n in names}  # type: ignore[union-attr]


def rows_of(study: Study, case: str, pair: Pair, how: Variant) -> Iterator[dict[str, Any]]:
    """What each part costs, from the side of each parent."""
    folder = study.out / "means" / key_of(pair, how)
    if not folder.exists():
        return
    config, *sides = ends(study, pair, how, folder)
    parts = dict.fromkeys(map(part_of, sides[0]))
    for place, (own, other, name) in enumerate(zip(sides, sides[::-1], pair, strict=True)):
        share = by_rows(one_of(study.shares(pair, how), 1 - place), own)
        for part in ("none", *parts, WHOLE):
            chosen = {n for n in own if part in (WHOLE, part_of(n))}
            mixed = {n: torch.lerp(own[n], other[n], share[n] * (n in chosen)) for n in own}
            lost = 1.0 - kept(study, build_model(config, mixed), name)
            yield {"case": case, "pair": " + ".join(pair), "way": WAYS[how], "part": part,
                   "parent": name, "lost": lost}  # fmt: skip


def kept(study: Study, model: torch.nn.Module, parent: str) -> float:
    """Retention of a parent's language, held against that parent alone."""
    text, alone = study.text(parent, "curve"), (parent, parent)
    own = study.score(study.model(parent).model, alone, "curve")
    found = judge(study.score(model, alone, "curve"), {parent: own}, text.floors,
                  text.text.documents)  # fmt: skip
    return found.worst.value


@dataclasses.dataclass(frozen=True)
class PartInfo:
    """Case -> way -> part -> losses of its parents."""

    panels: Mapping[str, Mapping[str, Mapping[str, list[float]]]]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown."""
        return (
            "What averaging one part alone costs: the share of what a parent keeps over unigrams "
            "that is lost when that part is the mean of both models and all else is its own. "
            "Lines: median over parents; dots: parents. Right: everything averaged."
        )


def parts_info(table: PartTable) -> PartInfo:
    """Losses by case, way and part."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for row in table.rows():
        if row["part"] != "none":
            way = found.setdefault(row["case"], {}).setdefault(row["way"], {})
            way.setdefault(row["part"], []).append(row["lost"])
    pairs = len(table.unique("pair"))
    return PartInfo(found, "Where the loss of a mean lies", (f"{pairs} pairs", "6 kB held out"))


def draw_parts(info: PartInfo, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A frame per case, a line per way over the parts in the order of the forward pass."""
    ways = [way for way in WAYS.values() if any(way in panel for panel in info.panels.values())]
    found = dict(zip(ways, looks([""] * len(ways)), strict=True))
    key = fig.key_of({way: line_marker(found[way], 3.6, linewidth=1.3) for way in ways})
    count, height = len(info.panels), 2.9
    axes = fig.frames(info, ax, count, count, size, height, key=key, sharey=True)
    for frame, (case, panel) in zip(axes, info.panels.items(), strict=True):
        frame.axhline(0.0, color=FAINT, linewidth=0.8)
        parts = list(next(iter(panel.values())))
        for way, losses in panel.items():
            middle = [statistics.median(losses[part]) for part in parts]
            frame.plot(range(len(parts)), middle, **line_marker(found[way], 3.6, linewidth=1.3))
            for place, part in enumerate(parts):
                frame.plot([place] * len(losses[part]), losses[part], linestyle="", marker=".",
                           markersize=3, color=found[way].line, alpha=0.6)  # fmt: skip
        frame.set_xticks(range(len(parts)), [part.replace("attention", "attn") for part in parts],
                         rotation=90)  # fmt: skip
        frame.set_yscale("symlog", linthresh=0.1)
        fig.title_panel(frame, case, 2.2)
    fig.name_axes(axes, "what is averaged", "share lost (linear below 0.1)", height)
    return fig.finish(axes)


PARTS = Figure("learned_alignment_parts", "parts", parts_info, draw_parts)


def section(table: PartTable) -> list[str]:
    """The section of the page: figure and table of medians."""
    info = parts_info(table)
    lines = ["## Where the loss lies", "", info.caption(), "",
             "![Loss by part](parts.png)", ""]  # fmt: skip
    parts = list(next(iter(next(iter(info.panels.values())).values())))
    lines += [f"| case | aligned | {' | '.join(parts)} |", "|---" * (len(parts) + 2) + "|"]
    for case, panel in info.panels.items():
        for way, losses in panel.items():
            cells = [number(statistics.median(losses[part])) for part in parts]
            lines.append(f"| {case} | {way} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Measure."""
    torch.set_num_threads(1)
    study = Study(Path(sys.argv[1]))
    PartTable(
        row for case in DISTINCT for pair in CASES[case] for how in WAYS
        for row in rows_of(study, case, pair, how)
    ).save(FIGURES / "parts.csv")  # fmt: skip


if __name__ == "__main__":
    main()
