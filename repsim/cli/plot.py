"""`repsim plot`: redraw the figures of a comparison."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from repsim.cli import options as opt
from repsim.cli.output import print_json, say


@click.command(
    epilog="""\b
Example:
  repsim plot out/first --kind layers --kind heatmap --measure cka --format pdf
"""
)
@click.argument("folder", type=opt.PATH)
@opt.many("--kind", "kinds", "layers, heatmap ...; default: all.")
@click.option("-m", "--measure", help="Measure to draw; default: cka if it is there.")
@opt.choices("--format", "formats", ["png", "svg", "pdf"],
             "May be repeated; default: png and svg.")  # fmt: skip
@opt.choice("--size", ["single", "medium", "wide"],
            "single: one column of a paper (3.4 in); medium: 5 in; wide: two columns (7 in).",
            "wide")  # fmt: skip
@opt.out("Default: FOLDER/figures.")
@opt.as_json
def plot(
    folder: Path, kinds: tuple[str, ...], measure: str | None, formats: tuple[str, ...],
    size: str, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw figures of the comparison in FOLDER as PNG, SVG or PDF."""
    from repsim.core import SimilarityTable, UsageError
    from repsim.plots import TablePlots, save_figure

    plots = TablePlots(SimilarityTable.load(folder))
    target = out or folder / "figures"
    written: list[str] = []
    for kind in kinds or dir(plots):
        draw = getattr(plots, kind)
        takes = measure and "measure" in inspect.signature(draw).parameters
        wanted = {"measure": measure} if takes else {}
        try:
            figure = draw(size=size, **wanted)
        except UsageError as reason:
            if kinds:
                raise
            say("skip", f"{kind}: {reason.what}")
            continue
        stem = target / (f"{kind}-{measure}" if wanted else kind)
        written += [str(path) for path in save_figure(figure, stem, formats or ("png", "svg"))]
    if as_json:
        print_json({"figures": written})
    else:
        for path in written:
            click.echo(path)
    say("wrote", f"{len(written)} files in {target}")
