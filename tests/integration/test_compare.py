"""From model names to a report: the whole way, interrupted, and with bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import repsim
from repsim.core import SimilarityTable, UsageError
from repsim.studies.compare import plan_comparison
from repsim.testing.tiny_models import write_tiny_model

FAST = ["--limit", "40", "-l", "eng_Latn", "-l", "deu_Latn", "-m", "cka"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: str(write_tiny_model(kind, folder / name, seed=seed))
        for name, kind, seed in (("a", "llama", 0), ("b", "llama", 1), ("enc", "bert", 2))
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def repsim_command(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "repsim.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"REPSIM_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )


def test_a_comparison_writes_everything_it_says(
    models: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = repsim_command(cache, "compare", models["a"], models["enc"], *FAST, "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert "plan" in done.stderr
    assert "report.html" in done.stderr
    assert "a ↔ enc · eng_Latn" in done.stdout
    for name in ("report.html", "report.md", "report.json", "similarity.parquet", "manifest.json",
                 "tables/similarity.csv", "tables/summary.tex"):  # fmt: skip
        assert (out / name).stat().st_size > 0
    table = SimilarityTable.load(out)
    assert set(table.unique("measure")) == {"cka"}
    assert set(table.unique("pairing")) == {"same text", "parallel text"}
    assert np.isfinite(table.where(measure="cka").column("p_adjusted")).any()
    assert json.loads((out / "manifest.json").read_text())["status"] == "complete"


def test_the_python_way_gives_the_same_numbers(
    models: dict[str, str], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(cache))
    options = {"languages": ["eng_Latn", "deu_Latn"], "limit": 40, "measures": ["cka"]}
    table = repsim.compare([models["a"], models["b"]], corpus="kolibri", **options)
    out = tmp_path / "out"
    done = repsim_command(cache, "compare", models["a"], models["b"], "--limit", "40", "-l", "eng",
                          "-l", "deu", "-m", "cka", "-o", str(out))  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(table.column("value"), SimilarityTable.load(out).column("value"))
    assert table.plot.layers(measure="cka") is not None


def test_a_killed_comparison_goes_on_without_computing_again(
    models: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["compare", *models.values(), *FAST, "-o", str(out)]
    environment = os.environ | {"REPSIM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    victim = subprocess.Popen(
        [sys.executable, "-m", "repsim.cli.main", *arguments],
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.glob("scores/[!.]*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    parts = {path: path.stat().st_mtime_ns for path in out.glob("scores/[!.]*.parquet")}
    assert parts, "no part was written before the kill"
    assert not (out / "report.html").exists()
    again = repsim_command(cache, *arguments)
    assert again.returncode == 0, again.stderr
    assert f"{len(parts)} of " in again.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in parts.items())
    whole = repsim_command(cache, *arguments[:-1], str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    resumed, undisturbed = (SimilarityTable.load(p) for p in (out, tmp_path / "whole"))
    assert list(resumed.rows()) == list(undisturbed.rows())


def test_bad_input_gives_its_message_and_exit_code(
    models: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    misaligned = tmp_path / "bad.tsv"
    misaligned.write_text("id\teng_Latn\tdeu_Latn\n1\tone\teins\n2\ttwo\n", encoding="utf-8")
    three = tmp_path / "three.tsv"
    three.write_text(
        "id\teng_Latn\tdeu_Latn\n" + "".join(f"{i}\tword {i}\tWort {i}\n" for i in range(3)),
        encoding="utf-8",
    )
    unknown = tmp_path / "unknown"
    unknown.mkdir()
    (unknown / "config.json").write_text('{"model_type": "xlnet"}', encoding="utf-8")
    save_file({"weight": np.zeros(2, np.float32)}, unknown / "model.safetensors")
    a, b = models["a"], models["b"]
    cases: list[tuple[list[str], int, str]] = [
        ([a, b, "--corpus", str(tmp_path / "gone.tsv")], 3, "does not exist"),
        ([a, b, "--corpus", str(misaligned)], 3, "bad.tsv"),
        ([a, b, "-m", "ckaa"], 2, "unknown measure 'ckaa'"),
        ([a, str(unknown)], 4, "xlnet"),
        ([a, str(tmp_path / "nowhere")], 3, "does not exist"),
        ([a, b, "--corpus", str(three), "-m", "cka"], 3, "got 3"),
        ([a, a], 2, "two models are called 'a'"),
        ([a, b, "-l", "klingon"], 2, "klingon"),
    ]
    for arguments, code, message in cases:
        done = repsim_command(cache, "compare", *arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert message in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_nan_activations_are_refused_and_named(cache: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(write_tiny_model("llama", tmp_path / "broken", seed=3))
    weights = load_file(folder / "model.safetensors")
    key = next(name for name in weights if name.endswith("embed_tokens.weight"))
    weights[key][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    healthy = write_tiny_model("llama", tmp_path / "healthy", seed=4)
    done = repsim_command(cache, "compare", str(folder), str(healthy), *FAST)
    assert done.returncode == 3, done.stderr
    assert "broken" in done.stderr
    assert "NaN" in done.stderr


SCRIPT = """\
import pathlib, sys
import repsim
from repsim.measures import similarity_measure

with pathlib.Path("ran").open("a") as seen:
    seen.write("x")


@similarity_measure(
    name="mine", label="Mine", rung=None, direction="similarity", range=(None, None),
    invariances=(), min_samples=2, definition="d", reference="-", estimator="-",
)
def mine(x, y):
    return float((x.centered.mean(1) * y.centered.mean(1)).sum())


for measures in (["cka"], ["cka", "mine"]):
    table = repsim.compare(
        sys.argv[1:], languages=["eng_Latn", "deu_Latn"], limit=30, measures=measures,
        permutations=5, workers=2,
    )
    print(len(table), *table.unique("measure"))
"""


def test_workers_do_not_run_a_script_again_that_has_no_main_guard(
    models: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "mine.py", *models.values()],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"REPSIM_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").read_text() == "x"
    first, second = done.stdout.splitlines()[-2:]
    assert first.endswith(" cka")
    assert second.endswith(" cka mine")


def test_what_does_not_exist_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match=r"unknown hook point 'headz' .*'heads'"):
        plan_comparison(["zoo:eng-1", "zoo:eng-2"], point="headz")


def test_sentences_in_memory_are_a_corpus() -> None:
    planned = plan_comparison(
        ["zoo:eng-1", "zoo:eng-2"], corpus=["One.", "Two.", "Three.", "Four."]
    )
    assert planned.corpus.languages == ("und",)
