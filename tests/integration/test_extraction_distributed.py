"""Extraction by several processes, after a kill, and in bounded memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repsim.activations import extract
from repsim.core import ParallelCorpus
from repsim.core.pool import one_thread
from repsim.models import load_model
from repsim.testing.tiny_models import write_tiny_model

N = 600
PROGRAM = """
import os, signal, sys
from repsim.activations import extract
from repsim.core import ParallelCorpus
from repsim.models import load_model

folder, cache, n, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
text = tuple("the winter " * (1 + i * i % 7) + str(i) for i in range(n))
corpus = ParallelCorpus("made", tuple(map(str, range(n))), {"eng_Latn": text})
model = load_model(folder)
passes = 0

def count(module, args):
    global passes
    passes += 1
    if passes == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

model.model.register_forward_pre_hook(count)
acts = extract(model, corpus, cache=cache, batch_size=64)[0]
with open(f"{cache}-{os.environ.get('RANK', 0)}.txt", "w") as out:
    print(passes, len(acts), acts.info["chunks"], file=out)
"""


def corpus_of(n: int) -> ParallelCorpus:
    text = tuple("the winter " * (1 + i * i % 7) + str(i) for i in range(n))
    return ParallelCorpus("made", tuple(map(str, range(n))), {"eng_Latn": text})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model("llama", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory) -> Path:
    """What one process writes that nothing disturbs."""
    cache = tmp_path_factory.mktemp("cache")
    with one_thread():  # more threads sum in another order
        acts = extract(load_model(folder), corpus_of(N), cache=cache, batch_size=64)[0]
    return acts.source.path


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=120
    )


def test_two_ranks_write_the_bytes_of_one_process(folder, expected, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = run(*launcher, str(script), str(folder), str(tmp_path / "cache"), str(N), "0")
    assert done.returncode == 0, done.stderr
    # 600 sentences are chunks of 256, 256 and 88: rank 0 has the first and the last.
    told = [(tmp_path / f"cache-{rank}.txt").read_text() for rank in (0, 1)]
    assert told == ["6 600 2\n", "4 600 1\n"]
    (written,) = (tmp_path / "cache").iterdir()
    assert written.name == expected.name
    assert written.read_bytes() == expected.read_bytes()


def test_a_killed_extraction_goes_on_where_it_was(folder, expected, tmp_path):
    cache = tmp_path / "cache"
    # The sixth of ten passes is in the second of three chunks.
    killed = run("-c", PROGRAM, str(folder), str(cache), str(N), "6")
    assert killed.returncode == -9
    passes = []
    model = load_model(folder)
    model.model.register_forward_pre_hook(lambda module, args: passes.append(1))
    with one_thread():
        acts = extract(model, corpus_of(N), cache=cache, batch_size=64)[0]
    assert len(passes) == 6
    assert acts.info["chunks_computed"] == 2
    assert acts.source.path.read_bytes() == expected.read_bytes()
    assert len(list(cache.iterdir())) == 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_sentences(tmp_path):
    # Wide rows from little work: 10 KB a sentence.
    slim = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8}
    wide = {"hidden_size": 512, "intermediate_size": 8, "num_hidden_layers": 4, **slim}
    model = load_model(write_tiny_model("llama", tmp_path / "wide", **wide))
    extract(model, numbers(1024), cache=tmp_path / "warm", batch_size=64)
    few, few_bytes = peak_growth(model, 1024, tmp_path / "few")
    many, many_bytes = peak_growth(model, 10240, tmp_path / "many")
    assert many_bytes - few_bytes > 90e6
    assert many - few < 20e6


def numbers(n: int) -> ParallelCorpus:
    text = tuple(f"the {i}" for i in range(n))
    return ParallelCorpus("made", tuple(map(str, range(n))), {"eng_Latn": text})


def peak_growth(model, n: int, cache: Path) -> tuple[int, int]:
    """Bytes by which the peak of resident memory rises during an extraction, and what it writes."""
    corpus = numbers(n)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    acts = extract(model, corpus, cache=cache, batch_size=64)[0]
    return resident("VmHWM") - before, acts.source.path.stat().st_size


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)
