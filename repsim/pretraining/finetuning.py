"""Fine-tune one existing model: a family of one run, whose folder is the model's folder."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from repsim.core.errors import UsageError
from repsim.core.files import hash_json, read_json, write_json
from repsim.core.model_ref import ModelRef
from repsim.corpora.training_text import load_training_text
from repsim.pretraining.config import FamilyConfig, from_mapping
from repsim.pretraining.config_training import CONTEXT, GENTLE
from repsim.pretraining.folder import PROVENANCE, model_ref, read_provenance, remove
from repsim.pretraining.metrics import read_metrics
from repsim.pretraining.parent import longest_context, open_parent
from repsim.pretraining.planning import RunPlan, plan

#: While it trains, everything lies in here; afterwards the model's files move up.
WORK, SETTINGS = "training", "finetune.json"
#: Bytes of training text that are read for each token, so that no more is tokenised than is used.
BYTES_PER_TOKEN = 12


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """What is asked for, worked out: the family of one run, and where the model goes."""

    config: FamilyConfig
    run: RunPlan
    out: Path
    allow_network: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, as a hash: paths do not belong into a model's folder."""
        assert self.config.init_from
        parent = open_parent(self.config.init_from)
        # Where the order of data makes a difference, the key of the run tells.
        known = {k: v for k, v in self.config.to_dict().items() if k != "data_order"}
        return {"settings": hash_json([known, parent.ref.weights_hash])}


def plan_finetuning(model: str, out: str | Path, **settings: Any) -> FineTuning:
    """Work out a fine-tuning without starting it; arguments and errors as for `finetune`."""
    given = inspect.signature(finetune).bind(model, out, **settings)
    given.apply_defaults()
    asked = SimpleNamespace(**given.arguments)
    if not asked.languages:
        raise UsageError("there is no language to fine-tune on", hint="-l deu_Latn")
    target, tokens, context = Path(out), asked.tokens, asked.context
    languages = list(dict.fromkeys([*asked.languages, *asked.also]))
    load_training_text(  # is it there?
        asked.corpus, languages, allow_network=asked.allow_network
    )
    parent = open_parent(model, allow_network=asked.allow_network)
    rows = asked.batch or int(GENTLE["batch"])
    window = context or min(CONTEXT, longest_context(parent) or CONTEXT)
    training: dict[str, Any] = {"tokens": tokens, "batch": rows}
    training |= {"lora": dict(asked.lora)} if asked.lora is not None else {}
    training |= {"learning_rate": asked.learning_rate} if asked.learning_rate is not None else {}
    steps = max(1, round(tokens / (rows * window)))
    name = target.resolve().name
    config = from_mapping(
        {
            "name": name,
            "corpus": {
                "source": asked.corpus,
                "languages": languages,
                "max_bytes": max(100_000, BYTES_PER_TOKEN * tokens),
            },
            "init_from": model,
            "architecture": {"context": window},
            "training": training,
            "saving": {
                "log_every": max(1, steps // 20),
                "validate_every": steps,
                "state_every": max(10, steps // 5),
                "checkpoints": "none",
                "validation_bytes": asked.evaluation_bytes,
                "final_bytes": asked.evaluation_bytes,
                "dtype": asked.dtype or parent.dtype,
            },
            "runs": [{"name": name, "languages": list(asked.languages), "data_seed": asked.seed}],
        }
    )
    return FineTuning(config, plan(config)[0], target, asked.allow_network)


def finetune(
    model: str,
    out: str | Path,
    *,
    languages: Sequence[str],
    corpus: str = "bible",
    tokens: int = 20_000,
    lora: Mapping[str, Any] | None = None,
    learning_rate: float | None = None,
    batch: int | None = None,
    context: int | None = None,
    seed: int = 0,
    also: Sequence[str] = (),
    evaluation_bytes: int = 20_000,
    dtype: str | None = None,
    device: str | None = None,
    allow_network: bool = False,
) -> ModelRef:
    """Train an existing causal language model on text of some languages, tokenizer kept.

    A stopped call goes on where it was; a finished one is not done again. The folder holds a model
    that transformers loads, its history (`init_from` names the parent by the hash of its weights,
    so that two models from one parent are known as siblings), and bits per byte before and after
    in `metrics.jsonl`.

    Args:
        model: A Hugging Face folder, "zoo:NAME" or a hub id ("org/name@revision").
        out: Folder of the new model.
        languages: FLORES-style codes, in equal shares.
        corpus: As `repsim.corpora.load_training_text` takes it.
        tokens: How many to train on.
        lora: Train an adapter: `rank`, `alpha`, `dropout`, `targets`, all optional; the adapter
            alone lies in `adapter/`, as peft reads it.
        learning_rate: Peak; 5e-5, or 2e-4 for an adapter, if not given.
        batch: Windows per update, 4 if not given.
        context: Tokens of a window; 256, or as many as the model takes, if not given.
        seed: Of the order of data, and of the adapter.
        also: More languages whose held-out text is scored before and after.
        evaluation_bytes: Held-out text per language that is scored, 0 for all.
        dtype: Of the stored weights; that of the parent if not given.
        device: `cpu`, `cuda`, `cuda:1`; the accelerator if there is one.
        allow_network: Whether the model and a data set may be downloaded.

    Raises:
        UsageError: Settings that are not possible, or `out` holds something else.
        InputError: The model or text is not there or damaged.
        IncompatibleModelsError: The model does not predict the next token.
        DivergedError: A loss became NaN or infinite.

    Example:
        >>> import tempfile
        >>> out = tempfile.mkdtemp() + "/deu"
        >>> ref = finetune("zoo:eng-1", out, languages=["deu_Latn"], tokens=512, context=64,
        ...                evaluation_bytes=5_000)
        >>> ref.role, ref.languages
        ('fine-tuned', ('deu_Latn',))
    """
    settings = {name: own for name, own in locals().items() if name != "device"}
    return run_finetuning(plan_finetuning(**settings), device=device)


def run_finetuning(asked: FineTuning, *, device: str | None = None) -> ModelRef:
    """Carry out what `plan_finetuning` worked out."""
    from repsim.pretraining.family import pretrain

    folder, settings = asked.out, asked.settings
    known = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else None
    if known is None and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"'{folder}' is not empty", hint="choose a new folder with --out")
    if known is not None and known != settings:
        raise UsageError(
            f"'{folder}' holds a fine-tuning with other settings",
            hint="choose another folder, or delete this one",
        )
    if known is not None and read_provenance(folder) and not (folder / WORK).exists():
        return model_ref(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, settings)
    pretrain(asked.config, folder / WORK, device=device, allow_network=asked.allow_network)
    made = folder / WORK / asked.run.name
    for path in sorted(made.iterdir(), key=lambda path: path.name == PROVENANCE):
        if path.name not in ("state", "forks", "checkpoints", "timing.jsonl"):
            remove(folder / path.name) if path.is_dir() else None
            shutil.move(path, folder / path.name)
    if (folder / "adapter").is_dir():
        from repsim.pretraining.adapter import state_base

        assert asked.config.init_from
        state_base(folder / "adapter", open_parent(asked.config.init_from).ref)
    remove(folder / WORK)
    return model_ref(folder)


def before_and_after(folder: str | Path) -> dict[str, dict[str, float]]:
    """Language -> bits per byte before the first and after the last step, and the unigram floor."""
    rows = read_metrics(Path(folder) / "metrics.jsonl")
    scored = [row for row in rows if row["kind"] == "validation"]
    provenance = read_provenance(folder)
    assert provenance is not None
    found = {}
    for language, after in provenance["bits_per_byte"].items():
        found[language] = {"before": scored[0][language], "after": after}
        if language in provenance["unigram_floor"]:
            found[language]["unigram floor"] = provenance["unigram_floor"][language]
    return found
