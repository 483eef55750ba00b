"""One kind of error has one exit code, whatever the verb; nothing passes as a traceback."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from repsim.core.errors import InputError, ResourceError, expected
from repsim.testing.tiny_models import write_tiny_model
from tests.planted.commands import exit_code

#: Verbs that take models; OTHER is a sound one.
VERBS: dict[str, list[str]] = {
    "compare": ["compare", "MODEL", "OTHER", "-o", "OUT"],
    "check": ["check", "MODEL", "OTHER"],
    "lineage": ["lineage", "MODEL", "OTHER"],
    "merge": ["merge", "MODEL", "OTHER", "OUT"],
    "predict": ["predict", "MODEL", "OTHER", "--tier", "T0"],
    "evaluate": ["evaluate", "MODEL", "OTHER"],
    "diagnose": ["diagnose", "MODEL", "OTHER", "zoo:deu-1"],
    "barrier": ["barrier", "MODEL", "OTHER"],
    "models": ["models", "--check", "MODEL"],
    "finetune": ["finetune", "MODEL", "-l", "deu_Latn", "-o", "OUT"],
}


def run_verb(verb: str, model: str, folder: Path, *more: str) -> int:
    names = {"MODEL": model, "OTHER": "zoo:eng-1", "OUT": str(folder / "out")}
    return exit_code(*(names.get(word, word) for word in VERBS[verb]), *more)


def damaged(kind: str, folder: Path) -> str:
    """A model folder that is not one."""
    if kind in ("no folder", "zoo:nope"):
        return str(folder / "nothing") if kind == "no folder" else kind
    model = write_tiny_model("llama", folder / "m", head=True)
    config, weights = model / "config.json", model / "model.safetensors"
    document: dict[str, Any] = json.loads(config.read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "pickled":
        weights.rename(model / "pytorch_model.bin")
    elif kind == "contradiction":
        config.write_text(json.dumps(document | {"num_hidden_layers": 1}))
    elif kind == "beyond measure":
        config.write_text(json.dumps(document | {"num_hidden_layers": 10_000_000}))
    elif kind == "nested":
        config.write_text('{"a":' * 100_000)
    elif kind == "long number":
        config.write_text('{"hidden_size": ' + "9" * 5000 + "}")
    elif kind == "empty index":
        weights.rename(model / "other.safetensors")
        (model / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    else:
        raise AssertionError(kind)
    return str(model)


KINDS = (
    "no folder", "zoo:nope", "truncated", "pickled", "contradiction", "beyond measure", "nested",
    "long number", "empty index",
)  # fmt: skip
#: What a verb does not look at: lineage reads weights alone, T0 needs none.
UNSEEN = {
    "lineage": ("contradiction", "beyond measure", "nested", "long number"),
    "predict": ("pickled",),
}


@pytest.mark.parametrize(
    ("verb", "kind"), [(v, k) for v in VERBS for k in KINDS if k not in UNSEEN.get(v, ())]
)
def test_a_model_that_is_none_is_bad_input_whatever_the_verb(
    verb: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_verb(verb, damaged(kind, tmp_path), tmp_path) == 3
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    if verb != "models":
        assert "error: " in told.err
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("verb", ["compare", "predict", "evaluate", "barrier"])
@pytest.mark.parametrize(("device", "code"), [("meta", 2), ("warp", 2), ("cuda:99", 5)])
def test_a_device_is_refused_with_one_code(
    verb: str, device: str, code: int, tmp_path: Path
) -> None:
    more = ["--tier", "T2"] if verb == "predict" else []
    assert run_verb(verb, "zoo:eng-2", tmp_path, "--device", device, *more) == code


class PanicException(BaseException):
    """As pyo3 raises where Rust panics: it is no `Exception`."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), 5),
        (OSError(errno.ENOSPC, "No space left on device"), 5),
        (OSError(errno.EFBIG, "File too large"), 5),
        (OSError(errno.EMFILE, "Too many open files"), 5),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 5),
        (RuntimeError("can't start new thread"), 5),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 5),
        (Exception("I/O error: File too large (os error 27)"), 5),
        (OSError(errno.EROFS, "Read-only file system", "/x"), 3),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3),
        (RecursionError("maximum recursion depth exceeded"), 3),
        (PanicException("called `Option::unwrap()` on a `None` value"), 3),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_limits_and_panics_have_a_code_and_no_traceback(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("repsim.models.list_zoo", fail)
    assert exit_code("zoo") == code
    assert "unexpected" not in capsys.readouterr().err
    found = expected(error)
    assert isinstance(found, ResourceError if code == 5 else InputError)


def test_what_is_a_defect_stays_one() -> None:
    assert expected(ValueError("x")) is None
    assert expected(KeyError("x")) is None
    assert expected(KeyboardInterrupt()) is None
