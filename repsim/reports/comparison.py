"""The report of a comparison: what a similarity table says, shows and rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from repsim.core import SimilarityTable
from repsim.reports.blocks import (
    Block,
    Details,
    Entries,
    Entry,
    FigureBlock,
    Items,
    Page,
    Section,
    TableBlock,
    Text,
    declared,
    said_of,
    software,
)
from repsim.reports.comparison_findings import findings, label_of, main_measure
from repsim.reports.glossary import note
from repsim.reports.page import sentence, write_page

#: At most this many measures get layer curves of their own.
MAX_MEASURES = 8
#: Columns of the summary; the page leaves out the name of the measure, which has a label.
SUMMARY = {
    "pair": ("string", "models", "", "unbroken"),
    "languages": ("string", "languages"),
    "pairing": ("string", "same text or parallel text", "pairing"),
    "measure": ("string", "name of the measure"),
    "label": ("string", "label of the measure; ↑ more is more alike, ↓ less is", "measure"),
    "middle": ("float", "value at half of the depth of both", "middle layer"),
    "interval": ("string", "its 95 % interval", "interval", "unbroken"),
    "null": ("float", "95 % quantile of shuffled sentence pairs, 5 % for a distance", "null 95 %"),
    "middle_partial": ("float", "the middle layer, covariates removed", "covariates removed"),
    "partial_interval": ("string", "its 95 % interval", "its interval", "unbroken"),
    "matched_mean": ("float", "mean over layers of equal relative depth", "mean, matched depth"),
    "across": ("float", "the middle layer, the two sides reading different halves of documents",
               "across halves"),
    "ceiling": ("float", "what it could be: each side's own likeness between halves of documents",
                "ceiling"),
    "best": ("float", "best of all pairs of layers", "best"),
    "best_layers": ("string", "layers of the best", "at layers", "unbroken"),
    "best_p_adjusted": ("float", "p value of the best against the best of shuffles",
                        "p, corrected"),
    "best_q": ("float", "false discovery rate of the best, over all tested cells of the measure",
               "q"),
    "n": ("int", "sentences", "n"),
}  # fmt: skip
#: Columns that a row of `SimilarityTable.summary` calls otherwise.
_SOURCES = {
    "null": "middle_null_q95", "across": "middle_across_halves", "ceiling": "middle_ceiling",
    "best_q": "best_q_value",
}  # fmt: skip
_SHOWN = [name for name in SUMMARY if name != "measure"]
_MODELS = {
    "name": ("string", "name"), "role": ("string", "role"),
    "architecture": ("string", "architecture"), "layers": ("int", "layers"),
    "width": ("int", "width"), "parameters": ("string", "parameters"),
    "languages": ("string", "languages"), "weights": ("string", "hash of the weights", "weights"),
    "tokenizer": ("string", "hash of the tokenizer", "tokenizer"),
}  # fmt: skip
#: Columns that the table of the main measure does without: its heading and languages say as much.
_SAID_ABOVE = {"label", "pairing", "n"}


def write_report(table: SimilarityTable, folder: str | Path) -> Path:
    """Write the report of a similarity table into a folder, with the table; gives `report.html`.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tables import synthetic_table
        >>> table = synthetic_table({"a": 2, "b": 2}, languages=("eng_Latn",), measures=("cka",))
        >>> write_report(table, tempfile.mkdtemp()).name
        'report.html'
    """
    folder = Path(folder)
    table.save(folder / "similarity.parquet")
    table.save(folder / "tables" / "similarity.csv")
    return write_page(comparison_page(table), folder)


def comparison_page(table: SimilarityTable) -> Page:
    """The report of a similarity table, as blocks."""
    info = table.info
    _, said = said_of(findings(table))
    corpus, models = info.get("corpus", {}), info.get("models", {})
    languages = len(corpus.get("languages", ()))
    lead = [f"{corpus['sentences']} sentences of “{corpus['name']}” in {languages} languages"
            if corpus else "", f"{len(models)} models",
            f"{len(info.get('measures', {}))} measures", f"{len(table):,} comparisons"]  # fmt: skip
    return Page(
        "Similarity of " + ", ".join(table.unique("model_a", "model_b")),
        [
            Section("What was found", said),
            Section("Numbers", _numbers(table)),
            Section("Figures", comparison_figures(table)),
            Section("How it was measured", _method(info)),
            Section("Where it comes from", _provenance(info)),
        ],
        kicker="repsim · similarity report",
        lead=" · ".join(filter(None, lead)),
        facts={
            "corpus": corpus,
            "statistics": info.get("statistics", {}),
            "extraction": info.get("extraction", {}),
            "environment": info.get("environment", {}),
        },
    )


def summary_table(table: SimilarityTable) -> TableBlock:
    """One row per pair and measure; the CSV has the name of the measure beside its label."""
    specs = table.info.get("measures", {})
    rows = []
    for row in table.summary():
        spec = specs.get(row["measure"], {})
        arrow = {"similarity": "↑", "distance": "↓"}.get(spec.get("direction", ""), "")
        layers = row["best_layer_a"], row["best_layer_b"]
        rows.append({name: row.get(_SOURCES.get(name, name)) for name in SUMMARY} | {
            "pair": _both(row["model_a"], row["model_b"]),
            "languages": _both(row["language_a"], row["language_b"]),
            "label": f"{spec.get('label', row['measure'])} {arrow}".strip(),
            "interval": _interval(row, "middle"),
            "partial_interval": _interval(row, "middle_partial"),
            "best_layers": None if None in layers else ", ".join(map(str, layers)),
        })  # fmt: skip
    return TableBlock("summary", "All measures", declared(SUMMARY, rows), _SHOWN)


def _interval(row: dict[str, Any], name: str) -> str | None:
    low, high = row[f"{name}_ci_low"], row[f"{name}_ci_high"]
    return None if low is None or high is None else f"[{low:.3f}, {high:.3f}]"


def _both(a: str, b: str) -> str:
    return a if a == b else f"{a} ↔ {b}"


def _numbers(table: SimilarityTable) -> list[Block]:
    summary = summary_table(table)
    main = main_measure(table)
    columns = [name for name in _SHOWN if name not in _SAID_ABOVE]
    rows = summary.table.where(measure=main)
    first = TableBlock("", label_of(table, main), rows, columns, folded=False)
    missing = Items(table.not_computed(), "note")
    return [first, missing, note("comparison table"), summary]


def comparison_figures(table: SimilarityTable) -> list[FigureBlock]:
    """Every figure of a comparison, in the order of the page."""
    return [
        FigureBlock("-".join([kind, *(str(v).replace(" ", "-") for v in options.values())]), title,
                    kind, table, options)
        for title, kind, options in _kinds(table)
    ]  # fmt: skip


def _kinds(table: SimilarityTable) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Title, kind and options of each figure, in the order of the page."""
    main = main_measure(table)
    label, pairings = label_of(table, main), table.unique("pairing")
    yield "The invariance ladder", "ladder", {}
    for pairing in pairings:
        yield f"{label} by layer, {pairing}", "layers", {"measure": main, "pairing": pairing}
    stated = table.info.get("models", {}).values()
    if sum(of.get("step") is not None for of in stated) > 2:
        yield f"{label} over training", "checkpoints", {"measure": main}
    if "same text" in pairings:
        yield f"{label}, layer by layer", "heatmap", {"measure": main}
    if "parallel text" in pairings:
        yield f"{label} between languages", "languages", {"measure": main}
    yield "Models and languages as a map", "space", {"measure": main}
    for measure in table.unique("measure")[:MAX_MEASURES]:
        for pairing in pairings if measure != main else ():
            title = f"{label_of(table, measure)} by layer, {pairing}"
            yield title, "layers", {"measure": measure, "pairing": pairing}


def _method(info: dict[str, Any]) -> list[Block]:
    entries = []
    for m in info.get("measures", {}).values():
        invariances = ", ".join(m.get("invariances", ())) or "nothing"
        text = (
            f"{sentence(m['definition'])} {sentence(m['estimator'])} "
            f"{m['direction'].capitalize()}; identical input gives {m['identity_value']}. "
            f"Unchanged by: {invariances}."
        )
        rung = f"{m['rung']} · blind to {m['blind_to']}" if m.get("rung") else ""
        entry = Entry(f"{m['label']} `{m['name']}`", text, note=rung, source=m["reference"])
        entries.append(entry)
    described = info.get("statistics", {}).get("description", "")
    return [Entries(entries), *([Text(described)] if described else [])]


def _provenance(info: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    rows = []
    for model in info.get("models", {}).values():
        row = {key: model[key] for key in list(_MODELS)[:6]}
        row["parameters"] = f"{model['parameters']:,}"
        spoken = " ".join(model.get("languages", ())) or "–"
        hashes = {key: f"`{model[f'{key}_hash'][:12]}`" for key in ("weights", "tokenizer")}
        rows.append({**row, "languages": spoken, **hashes})
    if rows:
        blocks.append(TableBlock("", "Models", declared(_MODELS, rows), folded=False))
    if corpus := info.get("corpus"):
        blocks.append(
            Text(
                f"Corpus {corpus['name']}: {corpus['sentences']} sentences in "
                f"{corpus['documents']} documents, languages {', '.join(corpus['languages'])}, "
                f"hash `{corpus['hash'][:12]}`. {corpus['source']}"
            )
        )
    facts = [
        {"model": model, "language": language,
         "facts": "; ".join(f"{key}: {value}" for key, value in known.items())}
        for model, languages in info.get("extraction", {}).items()
        for language, known in languages.items()
    ]  # fmt: skip
    if facts:
        columns = {name: ("string", name) for name in facts[0]}
        block = TableBlock("", "", declared(columns, facts), folded=False)
        blocks.append(Details("Tokens, truncation and pooling per model and language", [block]))
    return [*blocks, *software(info.get("environment", {}))]
