"""The table that the prepared script makes on a GPU, made on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import pretraining_gpu
from tests.benchmarks.pretraining_gpu import main, read_checks

REPORT = """<testsuites><testsuite>
<testcase name="test_a_step_waits"/>
<testcase name="test_kernels[True]"><failure message="no flash">trace</failure></testcase>
<testcase name="test_memory"><skipped message="there is no CUDA device here"/></testcase>
</testsuite></testsuites>"""


def test_every_check_is_a_row_with_its_outcome() -> None:
    assert [(row["what"], row["found"]) for row in read_checks(REPORT)] == [
        ("a step waits", "passed"),
        ("kernels[True]", "failure: no flash"),
        ("memory", "skipped: there is no CUDA device here"),
    ]


def test_the_table_is_measured_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretraining_gpu, "checks", lambda: read_checks(REPORT))
    monkeypatch.setattr(pretraining_gpu, "device_rate", lambda device: ("of GEMM rate", 1e11))
    out = tmp_path / "table.md"
    main(["--device", "cpu", "--sizes", "tiny", "--steps", "1", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 3 + 5 + 2
    for what, found, _ in rows[4:]:
        assert float(found.split()[0].rstrip("%").replace(",", "")) > -1e4, what
