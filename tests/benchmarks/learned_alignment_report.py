"""Tables and figures of `learned_alignment.py` and its parts: `figures/learned_alignment/`.

    python tests/benchmarks/learned_alignment_report.py [OUT]

With OUT, the folder of the units, the table of all units is written anew; without, page and figures
are drawn from the tables that are there.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from learned_alignment_cases import CASES, FIGURES
from learned_alignment_parts import PARTS, PartTable, section

from repsim.core.atlas import COLLAPSE
from repsim.core.files import read_json, write_text
from repsim.core.formatting import number
from repsim.core.provenance import versions
from repsim.core.table import Table
from repsim.core.table_files import read_table_file
from repsim.plots.appearance import FAINT, GREY, Size, line_marker, looks, width_of
from repsim.plots.drawing import figure as fig
from repsim.plots.save import save_figure
from repsim.plots.spec import Drawing, Figure, Where

README = Path(__file__).with_name("README.md")
#: Variant -> what pages call it.
VARIANTS = {
    "none": "mean as it is",
    "permutation": "permutation",
    "orthogonal": "rotation",
    "learned": "learned maps",
    "none+tuned": "mean, all weights trained",
    "orthogonal+tuned": "rotated mean, all weights trained",
    "learned+tuned": "maps, then all weights (last eleventh)",
    "parent+tuned": "one parent, all weights trained",
    "scratch+tuned": "from scratch",
    "none, counted": "mean, rows by counts",
    "orthogonal, counted": "rotation, rows by counts",
    "learned, counted": "learned maps, rows by counts",
    "none+tuned, counted": "mean by counts, all weights trained",
    "learned, orthogonal": "learned maps, rotation first",
    "learned, rotation alone": "learned rotation of the stream alone",
    "learned, blocks alone": "learned maps inside blocks alone",
    "learned, first language": "learned maps, text of the first language",
    "learned, random": "learned maps, random points of the path",
    "learned, unrelated": "learned maps, other chapters in each language",
}
DRAWN = ("none, counted", "learned", "learned, counted", "none+tuned", "none+tuned, counted",
         "parent+tuned")  # fmt: skip
CLOSED = ("none", "permutation", "orthogonal")
#: Cases of the zoo that have learned maps.
SUMMARISED = [case for case in CASES if "twin" not in case]
#: Tokens of training that the early reading of learned alignment rests on.
EARLY = 30_000
#: Fewer say nothing about ranks.
LEAST_PAIRS = 4


class LearnedTable(Table):
    """One language of one model that was made of a pair."""

    SCHEMA, STEM = "repsim-benchmark/learned/1", "units"
    COLUMNS: ClassVar = {
        "case": ("string", "kind of pair"),
        "pair": ("string", "models"),
        "variant": ("string", "how the model was made"),
        "tokens": ("int", "tokens of text that it took, maps and weights together"),
        "language": ("string", "language"),
        "retention": ("float", "1 as the best parent, 0 as unigrams; 20 kB held out"),
        "ci_low": ("float", "lower end of the interval over documents"),
        "ci_high": ("float", "upper end"),
        "repaired": ("float", "the same after repair"),
        "other_domain": ("float", "retention on messages of a program (kolibri)"),
        "barrier": ("float", "bits per byte, 11 points, 6 kB held out"),
        "start": ("string", "what the maps were learned on top of"),
        "parameters": ("int", "numbers of the map"),
        "loss_before": ("float", "nats per token of the midpoint in the first update"),
        "loss_early": ("float", "the same at 30 thousand tokens, mean of ten updates"),
        "loss_after": ("float", "the same, mean of the last tenth of the updates"),
        "output_change": ("float", "largest relative change of an output by the map"),
        "cpu_seconds": ("float", "of aligning, learning and training"),
    }


def read_units(out: Path) -> LearnedTable:
    """Every unit that is done, and those of the table that were not done anew."""
    units = [read_json(path) for path in sorted((out / "units").glob("*.json"))]
    found = [row for unit in units for row in _rows(unit)]
    anew = {_unit(row) for row in found}
    known = LearnedTable(read_table_file(FIGURES / "units.csv")).rows()
    return LearnedTable([*(row for row in known if _unit(row) not in anew), *found])


def _unit(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["pair"], row["variant"], row["tokens"]


def _rows(unit: dict[str, Any]) -> Iterator[dict[str, Any]]:
    losses = unit.get("losses") or []
    last = max(1, len(losses) // 10)
    met = {} if unit["tuned"] else unit  # what was read of the mean before its weights were trained
    at = round(EARLY * len(losses) / max(1, unit["tokens"] - unit["tuned"]))
    early = losses[max(1, at - 5) : at + 5]
    spent = [unit.get(name, 0.0) for name in ("aligning_seconds", "tuning_seconds")]
    for code, (value, low, high) in unit["retention"].items():
        yield {
            "case": unit["case"], "pair": " + ".join(unit["pair"]), "variant": unit["variant"],
            "tokens": unit["tokens"], "language": code, "retention": value, "ci_low": low,
            "ci_high": high, "repaired": met.get("repaired", {}).get(code, [None])[0],
            "other_domain": unit["other_domain"].get(code, [None])[0],
            "barrier": met.get("barrier", {}).get(code), "start": unit.get("start"),
            "parameters": unit.get("parameters"), "loss_before": losses[0] if losses else None,
            "loss_early": statistics.fmean(early) if early else None,
            "loss_after": statistics.fmean(losses[-last:]) if losses else None,
            "output_change": unit.get("output_change"), "cpu_seconds": sum(spent),
        }  # fmt: skip


def label(variant: str) -> str:
    """What pages call a variant."""
    name, coarse, _ = variant.partition(", 8 windows")
    return VARIANTS[name] + (", 8 windows an update" if coarse else "")


class Point(NamedTuple):
    """Readings at one budget: of the worse language of each pair, or where either is known."""

    tokens: int
    kept: dict[str, float]
    barrier: tuple[float, ...]
    other: tuple[float, ...]
    repaired: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """Retention of each pair."""
        return tuple(self.kept.values())


class Panel(NamedTuple):
    """One case: variant -> its points by tokens."""

    case: str
    curves: dict[str, list[Point]]

    def complete(self, variant: str) -> set[str]:
        """Pairs that have every budget of a line: a median over them joins like with like."""
        points = self.curves.get(variant, [])
        return set.intersection(*(set(point.kept) for point in points)) if points else set()


@dataclasses.dataclass(frozen=True)
class LearnedInfo:
    """A panel per case."""

    panels: tuple[Panel, ...]
    title: str
    note: tuple[str, ...]

    def caption(self) -> str:
        """What is shown."""
        return (
            "Retention of the worse language against tokens of text, on a logarithmic axis (small"
            " ticks: 30 thousand, 300 thousand, 3 million); at the left edge the mean as it is, "
            "by permutation and by rotation, which take none. Thin lines: pairs of models. Thick "
            "lines: the median over the pairs that have every budget of the line; without such a "
            "pair there is none. Rows by counts: rows of embedding and head are weighed by how "
            "often each model's text has the token. What sets models apart from those of the zoo "
            "stands before a colon."
        )


def learned_info(table: LearnedTable, *, cases: Iterable[str] | None = None) -> LearnedInfo:
    """Retention of the worse language by case, variant and tokens.

    Args:
        table: One row per language of a unit.
        cases: Those to show; all that have learned maps if None.
    """
    found: dict[str, dict[str, dict[int, dict[str, list[dict[str, Any]]]]]] = {}
    for row in table.rows():
        variant = found.setdefault(row["case"], {}).setdefault(row["variant"], {})
        variant.setdefault(row["tokens"], {}).setdefault(row["pair"], []).append(row)
    learned = [case for case in found if {"learned", "learned, counted"} & found[case].keys()]
    panels = tuple(
        Panel(case, {
            variant: [_point(tokens, pairs) for tokens, pairs in sorted(by.items())]
            for variant, by in found[case].items()
        })
        for case in sorted(learned if cases is None else cases, key=_place_of_case)
    )  # fmt: skip
    most = max((len(p.kept) for panel in panels for c in panel.curves.values() for p in c),
               default=0)  # fmt: skip
    note = (f"1.3 million parameters if not stated, up to {most} pairs a case", "20 kB held out")
    return LearnedInfo(panels, "Learned alignment and what the same tokens do to weights", note)


def _place_of_case(case: str) -> tuple[str, int]:
    """The zoo's own cases first; among those of one kind of model, in the order of the cases."""
    kind, _, apart = case.partition(" (")
    return apart, list(CASES).index(kind) if kind in CASES else len(CASES)


def _point(tokens: int, pairs: dict[str, list[dict[str, Any]]]) -> Point:
    def worst(name: str, pick: Any = min) -> tuple[float, ...]:
        known = [[row[name] for row in rows if row[name] is not None] for rows in pairs.values()]
        return tuple(pick(values) for values in known if values)

    kept = {pair: min(row["retention"] for row in rows) for pair, rows in pairs.items()}
    return Point(tokens, kept, worst("barrier", max), worst("other_domain"), worst("repaired"),
                 worst("cpu_seconds"))  # fmt: skip


def draw_learned(info: LearnedInfo, *, ax: Where = None, size: Size = "wide") -> Drawing:
    """A frame per case, a thin line per pair and a thick one per variant over tokens."""
    found = dict(zip(DRAWN, looks([""] * len(DRAWN)), strict=True))
    shown = [name for name in DRAWN if any(name in panel.curves for panel in info.panels)]
    styles = {name: line_marker(found[name], 3.6, linewidth=1.6) for name in shown}
    marks = dict(zip(CLOSED, ("x", "1", "+"), strict=True))
    closed = {VARIANTS[name]: {"linestyle": "", "marker": mark, "color": GREY, "markersize": 5.5}
              for name, mark in marks.items()}  # fmt: skip
    key = fig.key_of({VARIANTS[name]: style for name, style in styles.items()} | closed)
    count, columns = len(info.panels), min(4, len(info.panels))
    height = 2.6 * -(-count // columns)
    axes = fig.frames(info, ax, count, columns, size, height, key=key, sharey=True)
    drawn = [p for panel in info.panels for name in (*CLOSED, *shown)
             for p in panel.curves.get(name, [])]  # fmt: skip
    budgets = sorted({p.tokens for p in drawn if p.tokens})
    left = budgets[0] / 3.2
    for frame, panel in zip(axes, info.panels, strict=True):
        frame.axhspan(-9, COLLAPSE, color="#F3E4DC", linewidth=0, zorder=0)
        for level in (0.0, 1.0):
            frame.axhline(level, color=FAINT, linewidth=0.8, zorder=1)
        for place, (name, mark) in zip((0.84, 1.0, 1.19), marks.items(), strict=True):
            for point in panel.curves.get(name, []):
                at = [left * place] * len(point.kept)
                frame.plot(at, point.values, marker=mark, linestyle="", color=GREY, markersize=5.5)
        for name in shown:
            _draw_line(frame, panel, name, styles[name])
        frame.set_xscale("log")
        frame.set_xlim(left * 0.72, budgets[-1] * 1.35)
        frame.set_ylim(min(v for p in drawn for v in p.values) - 0.15, 1.15)
        named = [t for t in budgets if f"{t}".rstrip("0") == "1"]  # more would touch
        frame.set_xticks([left, *named], ["none", *map(_short, named)])
        frame.set_xticks([t for t in budgets if f"{t}".rstrip("0") == "3"], minor=True)
        kind, _, apart = panel.case.rstrip(")").partition(" (")
        title = f"{apart}: {kind.removeprefix('two languages, ')}" if apart else kind
        fig.title_panel(frame, title, width_of(size) / columns - 0.4)
    fig.name_axes(axes, "tokens of text", "retention of the worse language", height)
    return fig.finish(axes)


def _draw_line(frame: Any, panel: Panel, name: str, style: dict[str, Any]) -> None:
    points, complete = panel.curves.get(name, []), panel.complete(name)
    for pair in dict.fromkeys(pair for point in points for pair in point.kept):
        own = [(point.tokens, point.kept[pair]) for point in points if pair in point.kept]
        frame.plot(*zip(*own, strict=True), color=style["color"], linewidth=0.6, alpha=0.6,
                   marker=".", markersize=2.5)  # fmt: skip
    if complete:
        middle = [statistics.median(point.kept[pair] for pair in complete) for point in points]
        frame.plot([point.tokens for point in points], middle, **style)


def _short(tokens: float) -> str:
    return f"{tokens / 1e6:g}M" if tokens >= 1e6 else f"{tokens / 1e3:g}k"


LEARNED = Figure("learned_alignment", "units", learned_info, draw_learned)


def page(table: LearnedTable, parts: PartTable) -> str:
    """The tables of all cases, and of parts, in Markdown."""
    info = learned_info(table, cases=table.unique("case"))
    lines = [
        "# Learned alignment and its controls", "",
        "Retention of the worse language (1: as its best parent, 0: no better than unigrams): "
        "median, and least to most over the pairs of a case. Barrier: the larger one of the two "
        "languages, bits per byte. Models of 1.3 million parameters of the zoo, trained on the "
        "Bible, unless a case says otherwise in brackets; another domain: messages of a learning "
        "platform. CPU seconds of aligning and training.", "",
        "![Retention against tokens](retention.png)", "", learned_info(table).caption(), "",
        "| case | model | tokens | pairs | retention | barrier | repaired | other domain | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for panel in info.panels:
        for name in sorted(panel.curves, key=_place):
            for p in panel.curves[name]:
                cells = [panel.case, label(name), f"{p.tokens:,}", str(len(p.kept)),
                         _span(p.values), *(_middle(v) for v in (p.barrier, p.repaired, p.other)),
                         f"{statistics.median(p.seconds):.0f}"]  # fmt: skip
                lines.append(f"| {' | '.join(cells)} |")
    script = "python tests/benchmarks/learned_alignment"
    lines += ["", early(table), "", *section(parts), "", _made(), "", "```",
              f"{script}.py OUT", f"{script}_parts.py OUT", f"{script}_report.py OUT",
              "```"]  # fmt: skip
    return "\n".join(lines) + "\n"


def _made() -> str:
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{dt.date.today()}, {platform.machine()}, one thread; {known}."


def early(table: LearnedTable) -> str:
    """What the loss at 30 thousand tokens tells of the merge in the end, over pairs."""
    from repsim.stats.ranks import spearman

    found: dict[str, dict[str, Any]] = {}
    for row in sorted(table.where(variant="learned").rows(), key=lambda row: row["tokens"]):
        if row["loss_early"] is not None and row["tokens"] > EARLY:
            same = found.get(row["pair"], {})
            again = same.get("tokens") == row["tokens"]
            worse = min(row["retention"], same["retention"]) if again else row["retention"]
            found[row["pair"]] = {**row, "retention": worse}
    if len(found) < LEAST_PAIRS:
        return f"{len(found)} pairs have more than 30 thousand tokens: too few for a correlation."
    ends = [row["retention"] for row in found.values()]
    gains = [row["loss_before"] - row["loss_early"] for row in found.values()]
    levels = [-row["loss_early"] for row in found.values()]
    return (
        f"Over the {len(ends)} pairs with more than 30 thousand tokens, rank correlation with the "
        f"retention of the worse language in the end: nats gained in the first 30 thousand tokens "
        f"{number(spearman(gains, ends))}, loss of the midpoint there (lower is better) "
        f"{number(spearman(levels, ends))}; {sum(end > COLLAPSE for end in ends)} end above "
        f"{COLLAPSE:g}."
    )


def summary(table: LearnedTable) -> str:
    """Medians of the worse language by variant and tokens, a column for each case of the zoo."""
    info = learned_info(table, cases=[c for c in table.unique("case") if c in SUMMARISED])
    wanted = sorted({(_place(name), name, p.tokens) for panel in info.panels
                     for name, points in panel.curves.items() for p in points
                     if name in (*CLOSED, *DRAWN)})  # fmt: skip
    rows = [["model", "tokens", *(panel.case for panel in info.panels)]]
    rows.append(["---"] * len(rows[0]))
    for _, name, tokens in wanted:
        points = [next((p for p in panel.curves.get(name, []) if p.tokens == tokens), None)
                  for panel in info.panels]  # fmt: skip
        rows.append([label(name), f"{tokens:,}", *(_span(p.values) if p else "" for p in points)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _place(variant: str) -> tuple[int, str]:
    return list(VARIANTS).index(variant.partition(", 8 windows")[0]), variant


def _span(values: tuple[float, ...]) -> str:
    middle, ends = number(statistics.median(values)), (number(min(values)), number(max(values)))
    return middle if len(values) == 1 else f"{middle} ({ends[0]} to {ends[1]}; {len(values)})"


def _middle(values: tuple[float, ...]) -> str:
    return number(statistics.median(values)) if values else ""


def main() -> None:
    """Write table, page and figure."""
    if len(sys.argv) > 1:
        read_units(Path(sys.argv[1])).save(FIGURES / "units.csv")
    table = LearnedTable(read_table_file(FIGURES / "units.csv"))
    parts = PartTable(read_table_file(FIGURES / "parts.csv"))
    save_figure(LEARNED(table), FIGURES / "retention")
    save_figure(PARTS(parts), FIGURES / "parts")
    write_text(FIGURES / "README.md", page(table, parts))
    start, end = "<!-- learned -->", "<!-- /learned -->"
    before, _, rest = README.read_text().partition(start)
    made = f"{summary(table)}\n\n{early(table)} {_made()}"
    write_text(README, f"{before}{start}\n{made}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
