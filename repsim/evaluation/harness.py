"""lm-evaluation-harness on any model of ours (extra `harness`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repsim.core.errors import InputError, ResourceError
from repsim.core.files import write_text
from repsim.core.model_ref import ModelRef
from repsim.evaluation.minimal_pairs import MinimalPair
from repsim.evaluation.text import EvaluationText
from repsim.models.inspect import locate

#: What keeps the harness and its data sets from the network.
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def model_arguments(
    model: str | Path | ModelRef,
    *,
    context: int | None = None,
    dtype: str = "float32",
    prompts: bool = False,
) -> dict[str, Any]:
    """`model_args` with which the harness's model "hf" loads a model of ours."""
    found: dict[str, Any] = {"pretrained": str(locate(model).folder), "dtype": dtype}
    if not prompts:
        found["add_bos_token"] = False
    if context is not None:
        found["max_length"] = context
    return found


def write_tasks(
    folder: str | Path,
    text: EvaluationText | None = None,
    pairs: Mapping[str, Sequence[MinimalPair]] | None = None,
) -> list[str]:
    """Write tasks of the harness with the data that they read."""
    if text is None and not pairs:
        raise InputError("there is nothing to make tasks of: give text or minimal pairs")
    target = Path(folder).resolve()
    names = []
    for language, documents in text.texts.items() if text else ():
        name = f"repsim_bits_per_byte_{language}"
        _write(target, name, [{"text": document} for document in documents], {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [_metric("bits_per_byte", "bits_per_byte", higher_is_better=False)],
        })  # fmt: skip
        names.append(name)
    for language, known in (pairs or {}).items():
        name = f"repsim_minimal_pairs_{language}"
        rows = [{"good": pair.good, "bad": pair.bad} for pair in known]
        _write(target, name, rows, {
            "output_type": "multiple_choice",
            "doc_to_text": "",
            "doc_to_target": 0,
            "doc_to_choice": "{{[good, bad]}}",
            "metric_list": [
                _metric(name, "mean", higher_is_better=True) for name in ("acc", "acc_norm")
            ],
        })  # fmt: skip
        names.append(name)
    return names


def _metric(name: str, aggregation: str, *, higher_is_better: bool) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher_is_better}


def _write(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], task: Mapping[str, Any]
) -> None:
    import yaml

    data = write_text(
        folder / f"{name}.jsonl",
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
    )
    head = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "num_fewshot": 0,
        "target_delimiter": "",
        "metadata": {"version": 1.0},
    }
    document = yaml.safe_dump({**head, **task}, sort_keys=False, allow_unicode=True)
    write_text(folder / f"{name}.yaml", document)


def run_harness(
    model: str | Path | ModelRef,
    folder: str | Path,
    tasks: Sequence[str],
    *,
    context: int | None = None,
    device: str = "cpu",
    batch_size: int = 8,
    prompts: bool = False,
) -> dict[str, dict[str, float]]:
    """Run the harness on tasks in a folder, without the network.

    Bits per byte differ from `repsim evaluate` a little where a document is longer than the
    context: the harness fills its last window with text that was scored before. For documents that
    fit they are the same.

    Args:
        model: See `model_arguments`.
        folder: What `write_tasks` wrote, or a folder of other tasks.
        tasks: Names of tasks.
        context: Tokens per window.
        device: Where the model runs.
        batch_size: Documents at once.
        prompts: See `model_arguments`.

    Returns:
        Task -> metric -> value.

    Raises:
        ResourceError: The harness is not installed.
    """
    with _offline():
        try:
            import lm_eval
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise ResourceError(
                f"lm-evaluation-harness is not installed, or not whole: {error}",
                hint='pip install "repsim-lm[harness]"',
            ) from None
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args=model_arguments(model, context=context, prompts=prompts),
            tasks=list(tasks),
            task_manager=manager,
            device=device,
            batch_size=batch_size,
            bootstrap_iters=0,
        )
    return {
        task: {
            metric.partition(",")[0]: float(value)
            for metric, value in metrics.items()
            if isinstance(value, int | float) and "stderr" not in metric
        }
        for task, metrics in found["results"].items()
    }


@contextmanager
def _offline() -> Iterator[None]:
    """Switch the network off for what is imported and run inside."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    os.environ.update(_OFFLINE)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
