"""Model cards: what a trained model is, where it comes from, how good it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from repsim.core.formatting import markdown_name


def model_card(provenance: Mapping[str, Any]) -> str:
    """The README.md of a model folder, from its provenance."""
    parts = [
        _front_matter(provenance),
        f"# {markdown_name(provenance['name'])}",
        _summary(provenance),
        "## Bits per byte on held-out text\n\n" + _scores(provenance),
        "## History\n\n" + _history(provenance),
        "## Training\n\n" + _training(provenance),
        "## Use\n\n" + _use(provenance),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(provenance: Mapping[str, Any]) -> str:
    languages = sorted({code.split("_")[0] for code in provenance["languages"]})
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "language:"]
    lines += [f"- {code}" for code in languages]
    if parent := provenance.get("init_from"):
        lines.append(f"base_model: {json.dumps(parent['name'], ensure_ascii=False)}")
    stated = provenance.get("license") or "unknown"
    lines.append(f"license: {json.dumps(stated, ensure_ascii=False)}")
    return "\n".join([*lines, "tags:", "- repsim", "- pretraining", "---"])


def _summary(provenance: Mapping[str, Any]) -> str:
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in provenance["mix"].items())
    return (
        f"A {provenance['architecture']}-type decoder of {provenance['parameters'] / 1e6:.2f}M "
        f"parameters (width {provenance['width']}, {provenance['layers']} layers, context "
        f"{provenance['context']}), step {provenance['step']} of {provenance['last_step']}, of the "
        f"family *{markdown_name(provenance['family'])}*. Own training text: {shares}. Trained to "
        "study merging and similarity of language models, not for use as a product."
    )


def _scores(provenance: Mapping[str, Any]) -> str:
    measured, floors = provenance["bits_per_byte"], provenance["unigram_floor"]
    if not measured:
        return "Not measured at this step."
    lines = ["| language | bits per byte | unigram floor |", "|---|---|---|"]
    for language, value in measured.items():
        floor = f"{floors[language]:.3f}" if language in floors else "-"
        lines.append(f"| {language} | {value:.3f} | {floor} |")
    lines += ["", f"Documents apart, BOS first, windows of {provenance['context']} tokens without "
              "overlap. The floor is a unigram token model of the training text."]  # fmt: skip
    return "\n".join(lines)


def _history(provenance: Mapping[str, Any]) -> str:
    lines = [
        "| run | steps | text | data seed |",
        "|---|---|---|---|",
    ]
    for phase in provenance["history"]:
        text = ", ".join(f"{name} {100 * share:.0f} %" for name, share in phase["mix"].items())
        steps = f"{phase['first_step']} to {phase['last_step']}"
        lines.append(f"| {markdown_name(phase['run'])} | {steps} | {text} | {phase['data_seed']} |")
    lines += ["", f"Initial weights: seed {provenance['init_seed']}."]
    if parent := provenance.get("init_from"):
        name, digest = markdown_name(parent["name"]), parent["weights_hash"][:16]
        lines[-1] = f"Initial weights: *{name}*, SHA-256 `{digest}`."
    if provenance["fork_state"]:
        lines[-1] += f" The fork took over {provenance['fork_state'].replace('+', ' and ')}."
    return "\n".join(lines)


def _training(provenance: Mapping[str, Any]) -> str:
    training = provenance["training"]
    corpus, source = provenance["corpus"], markdown_name(provenance["corpus"]["source"])
    return "\n".join(
        [
            f"- corpus: {source}, {corpus['content']} content per language",
            f"- tokens: {_tokens(provenance)}",
            f"- optimizer: {training['optimizer']}, peak learning rate "
            f"{training['learning_rate']:g}, {training['schedule']} schedule, batch "
            f"{training['batch']} x {provenance['context']} tokens",
            f"- weights: {provenance['dtype']}, SHA-256 `{provenance['weights_hash'][:16]}`",
            f"- tokenizer: SHA-256 `{provenance['tokenizer_hash'][:16]}`",
            "- software: " + ", ".join(f"{k} {v}" for k, v in provenance["versions"].items()),
        ]
    )


def _tokens(provenance: Mapping[str, Any]) -> str:
    """Own ones, and all if those that the parent read are known."""
    own = f"{provenance['own_tokens']:,}"
    if provenance["tokens"] is None:
        return f"{own} in this run; those of the model before it are not known"
    return f"{provenance['tokens']:,} ({own} in this run)"


def _use(provenance: Mapping[str, Any]) -> str:
    revisions = (
        "\n\nEach folder in `checkpoints/` is a model of its own. As revisions on the hub:\n\n"
        "```bash\n"
        "for step in checkpoints/step-*; do\n"
        '  hf upload ORGANISATION/NAME "$step" . --revision "$(basename "$step")"\n'
        "done\n```"
    )
    return (
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")\n'
        "```\n\n"
        "The whole history stands in `repsim_provenance.json`."
    ) + (revisions if provenance.get("checkpoints") else "")
