"""The command line: exit codes, JSON, did-you-mean, and a list of flags that changes on purpose."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from repsim.cli.main import COMMANDS, cli
from repsim.cli.output import print_table
from repsim.core.errors import GateFailedError, IncompatibleModelsError, InputError
from tests.planted.commands import exit_code

#: A new flag is a promise: add it here when it is meant.
FLAGS = {
    "compare": """--allow-network --arrays --batch-size --corpus --device --device-map
        --dry-run --dtype --force --generic --json --language --layers --limit --measure --memory
        --out --pairing --permutations --point --pooling --revision --seed --thorough --unit""",
    "plot": "--format --json --kind --measure --out --size",
    "check": "--base --deep --json --tokenizer",
    "merge": """--align --any-base --base --device --dry-run --force --forecast --json --keep
        --language --learning-rate --method --out-dtype --seed --set --text --then-finetune
        --token-weights --tokens""",
    "methods": "--json",
    "extract-lora": "--base --device --dry-run --energy --json --rank --rest",
    "evaluate": """--allow-network --base --card --context --corpus --device --device-map --dry-run
        --dtype --json --language --max-bytes --out --parents --revision""",
    "barrier": """--align --allow-network --context --corpus --device --dry-run --json --language
        --max-bytes --out --points""",
    "predict": """--align --base --corpus --device --device-map --dry-run --dtype --evidence
        --fail-above --json --language --limit --matrix --method --out --predictor
        --rank-methods --seed --set --text --tier --trial --trial-bytes --up-to""",
    "predictor": "",
    "study": "",
    "pretrain": "--allow-network --device --dry-run --fresh --json --only --out",
    "finetune": """--allow-network --alpha --also --batch --context --corpus --device --dry-run
        --dtype --evaluation-bytes --json --language --learning-rate --lora --out --rank --seed
        --target --tokens""",
    "zoo": "--json",
    "measures": "--benchmark --corpus --dry-run --figure --for --force --json --limit --measure "
    "--model --recommend --scores",
    "models": "--allow-network --check --families --fetch --generic --json --revision",
    "corpora": "--allow-network --json --language",
    "doctor": "--json",
}


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", sorted(FLAGS))
def test_the_flags_are_those_that_were_meant(name: str) -> None:
    flags = {
        max(parameter.opts, key=len)
        for parameter in command(name).params
        if isinstance(parameter, click.Option)
    }
    assert flags == set(FLAGS[name].split())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_verb_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(name, "--help") == 0
    assert len(capsys.readouterr().out) > 200
    for parameter in command(name).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_help_lists_verbs_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    assert "130 interrupted" in shown


def test_a_bare_call_is_helped(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code() == 0
    shown = capsys.readouterr()
    assert "First steps" in shown.out
    assert not shown.err


def test_a_misspelt_verb_or_option_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("comapre") == 2
    assert "did you mean 'compare'" in capsys.readouterr().err
    assert exit_code("measures", "--jsn") == 2
    assert "--json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x", hint="y"), 3),
        (IncompatibleModelsError("x"), 4),
        (GateFailedError("x"), 10),
        (MemoryError("x"), 5),
        (OSError(28, "No space left on device"), 5),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_message_and_a_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(command("measures"), "callback", fail)
    assert exit_code("measures") == code
    shown = capsys.readouterr()
    assert shown.err.lstrip().startswith("error: ")
    assert shown.out == ""
    assert exit_code("measures", "--json") == code
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["exit_code"] == code


def test_a_defect_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(command("measures"), "callback", fail)
    assert exit_code("measures") == 1
    shown = capsys.readouterr().err
    assert "unexpected error: ZeroDivisionError: oh" in shown
    log = Path(shown.split("traceback is in ")[1].strip())
    assert "ZeroDivisionError" in log.read_text()


def test_measures_are_listed_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("measures", "--json") == 0
    names = {document["name"] for document in json.loads(capsys.readouterr().out)}
    assert {"cka", "procrustes", "mutual_knn", "unit_correlation"} <= names
    assert exit_code("measures", "cka") == 0
    assert "debiased" in capsys.readouterr().out


def test_corpora_and_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("corpora", "--json") == 0
    assert {"kolibri", "udhr"} <= {d["name"] for d in json.loads(capsys.readouterr().out)}
    assert exit_code("corpora", "udhr", "-l", "eng_Latn") == 0
    assert "All human beings" in capsys.readouterr().out
    assert exit_code("models", "--json") == 0
    listed = {d["name"] for d in json.loads(capsys.readouterr().out)}
    assert listed == {"e5-small", "minilm", "smollm2"}
    assert exit_code("models", "--families", "--json") == 0
    assert "llama" in {d["family"] for d in json.loads(capsys.readouterr().out)}


def test_the_doctor_says_what_there_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REPSIM_CACHE", str(tmp_path))
    code = exit_code("doctor", "--json")
    document = json.loads(capsys.readouterr().out)
    assert code == (0 if document["ok"] else 3)
    assert {"torch", "cache", "import name"} <= {f["what"] for f in document["findings"]}


def test_a_folder_without_a_run_cannot_be_plotted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert exit_code("plot", str(tmp_path)) == 3
    assert "repsim compare" in capsys.readouterr().err


def test_a_plot_is_redrawn(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from repsim.testing.tables import synthetic_table

    table = synthetic_table({"x": 2, "y": 2}, languages=("eng_Latn",), measures=("cka",))
    table.save(tmp_path / "similarity.parquet")
    assert exit_code("plot", str(tmp_path), "--kind", "layers", "--format", "svg", "--json") == 0
    (path,) = json.loads(capsys.readouterr().out)["figures"]
    assert Path(path).read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_kinds_that_a_table_cannot_fill_are_skipped_unless_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from repsim.testing.tables import synthetic_table

    table = synthetic_table({"x": 2, "y": 2}, languages=("eng_Latn",), measures=("cka",))
    table.save(tmp_path / "similarity.parquet")
    assert exit_code("plot", str(tmp_path), "--format", "png", "--size", "single") == 0
    assert "skip   space" in capsys.readouterr().err
    assert exit_code("plot", str(tmp_path), "--kind", "space") == 2


def test_tables_align_numbers_right_and_mark_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table([{"name": "a", "value": 0.5}, {"name": "longer", "value": None}])
    assert capsys.readouterr().out.splitlines() == [
        "name    value", "a       0.500", "longer      –",
    ]  # fmt: skip
    print_table([])
    assert capsys.readouterr().out == ""


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("repsim")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "repsim" in done.stdout
