"""How far a study is, while it runs: one line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from repsim.core.progress import duration, progress, wanted
from repsim.studies.engine.graph import Graph
from repsim.studies.engine.run import Event

#: Seconds between lines where no terminal is.
EVERY = 30.0


@contextlib.contextmanager
def live_view(
    say: Callable[[str, str], None], workers: int, every: float = EVERY
) -> Iterator[Callable[[Event], None]]:
    """Give the listener that shows how far `run_graph` is."""
    on_terminal = wanted()
    with progress("study", total=1, unit="unit") as bar:
        last, shown = time.monotonic(), 0

        def listen(event: Event) -> None:
            nonlocal last, shown
            if event.what == "failed" and event.unit is not None:
                say("failed", f"{event.unit.name}: {event.error} (log: {event.log})")
            graph = event.graph
            if on_terminal:
                bar.total = len(graph.units)  # type: ignore[attr-defined]
                bar.update(len(graph.done) - shown)
                shown = len(graph.done)
                bar.set_postfix_str(_line(graph, workers))
            elif time.monotonic() - last >= every:
                last = time.monotonic()
                say("study", _line(graph, workers))

        yield listen


def _line(graph: Graph, workers: int) -> str:
    """Counts and time left."""
    parts = [f"{len(graph.done)} done", f"{len(graph.running)} running"]
    if graph.failed:
        parts.append(f"{len(graph.failed)} failed, {len(graph.skipped)} skipped for it")
    parts.append(f"{len(graph.left | graph.elsewhere)} left")
    if seconds := graph.seconds_left(workers):
        parts.append(f"about {duration(seconds)}")
    return " · ".join(parts)
