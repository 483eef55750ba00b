"""`repsim plot`: redraw the figures of a comparison."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

from repsim.cli.output import print_json, say


@click.command(
    epilog="""\b
Example:
  repsim plot out/first --kind layers --kind heatmap --measure cka --format pdf
"""
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--kind", "kinds", multiple=True, help="layers, heatmap ...; default: all.")
@click.option("-m", "--measure", help="Measure to draw; default: cka if it is there.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["png", "svg", "pdf"]),
    help="May be repeated; default: png and svg.",
)
@click.option(
    "--size",
    type=click.Choice(["single", "medium", "wide"]),
    default="wide",
    show_default=True,
    help="single: one column of a paper (3.4 in); medium: 5 in; wide: two columns (7 in).",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Default: FOLDER/figures.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as one JSON document.")
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
