"""A worker process: tasks come in as lines of JSON, reports go out as lines of JSON.

Run by `processes.ProcessExecutor` as `python -m repsim.studies.engine.executors.worker`. When the
process that started it is gone, its standard input ends, and it stops at once.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading

from repsim.studies.engine.work import perform


def main() -> None:
    """Carry out tasks until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which then ends us
    # Units may print: what they say must not get between the reports.
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    tasks: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    while True:
        reports.write(perform(tasks.get()) + "\n")
        reports.flush()


def _listen(tasks: queue.Queue[str]) -> None:
    for line in sys.stdin:
        tasks.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
