"""Forecasts as rows and as a page of Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from repsim.core.atlas import join_parents
from repsim.core.forecast import GainForecast, Interval, MergeForecast
from repsim.core.formatting import markdown_lines, markdown_name, markdown_text, number, percent
from repsim.stats.additive import LEAST

#: Said above the evidence of a forecast that was refused.
NOT_A_FORECAST = "evidence, not a forecast"


def forecast_heads(forecast: MergeForecast) -> dict[str, str]:
    """Columns of `forecast_rows` -> their heads, which say of each number what it is."""
    heads = {"language": "language"}
    if forecast.retention:
        heads |= {"retention": "retention", "interval": "90 % interval"}
    if forecast.gain and forecast.gain.kept:
        heads |= {"gain": f"gain kept over {forecast.gain.base}", "gain_interval": "90 % interval "}
    return heads


def forecast_rows(forecast: MergeForecast) -> list[dict[str, Any]]:
    """One row per language, and one for the worst; empty where everything was refused."""
    gain = forecast.gain
    parts = {"retention": ("interval", forecast.retention, forecast.worst)}
    if gain:
        parts["gain"] = ("gain_interval", gain.kept, gain.worst)
    rows: dict[str, dict[str, Any]] = {}
    for name, (ends, kept, worst) in parts.items():
        least = {"worst": worst} if worst and len(kept) > 1 else {}
        for language, found in {**kept, **least}.items():
            row = rows.setdefault(language, {"language": language})
            row |= {name: found.value, ends: interval_text(found)}
    heads = forecast_heads(forecast)
    return [{head: row.get(head) for head in heads} for row in rows.values()]


def gain_text(gain: GainForecast) -> str:
    """What can be said of the gain kept, in a sentence."""
    if gain.refusal:
        return f"gain kept over {gain.base}: cannot say: {gain.refusal}"
    return (
        f"gain kept over {gain.base}: 1 = all that training gave the best parent, 0 = no better "
        f"than {gain.base}, below 0 = harm; that some language keeps less than half is "
        f"{percent(gain.p_half or 0.0)} likely; by {gain.predictor}"
    )


def summary_row(forecast: MergeForecast) -> dict[str, Any]:
    """One forecast of many, in one row."""
    verdict: str = forecast.verdict
    if forecast.align_with:
        verdict = f"{verdict} ({forecast.align_with})"
    return {
        "parents": join_parents(forecast.models),
        "method": forecast.way,
        "alignment": forecast.alignment,
        "worst": forecast.worst.value if forecast.worst else None,
        "interval": interval_text(forecast.worst),
        "p_collapse": forecast.p_collapse,
        "p_useful": forecast.p_useful,
        "gain": forecast.gain.worst.value if forecast.gain and forecast.gain.worst else None,
        "verdict": verdict,
    }


def cost_text(forecast: MergeForecast) -> str:
    """Processor seconds by tier."""
    spent = ", ".join(f"{tier} {seconds:.1f} s" for tier, seconds in forecast.seconds.items())
    return f"{spent} of processor time"


def next_command(forecast: MergeForecast, sources: Sequence[str], base: str | None = None) -> str:
    """What to type next."""
    models = " ".join(shlex.quote(name) for name in sources)
    advised = forecast.verdict in ("merge", "align first")
    if forecast.refusal:
        return f"repsim check {models}"
    if not advised and forecast.verdict not in ("cannot say", "merge or align first"):
        return f"repsim predict {models} --rank-methods"
    parts = [f"repsim merge {models} OUT" if advised else f"repsim predict {models}"]
    if forecast.method != "linear":
        parts.append(f"--method {forecast.method}")
    parts += [
        f"--set {name}={value}" for name, value in forecast.settings.items()
        if len({*forecast.parameters[name]}) == 1  # an option is for all models
    ]  # fmt: skip
    if base and _takes_base(forecast.method):
        parts.append(f"--base {shlex.quote(base)}")
    alignment = forecast.align_with if advised and forecast.align_with else forecast.alignment
    if alignment != "none":
        parts.append(f"--align {alignment}")
    if not advised:
        parts.append("--trial" if "T2" in forecast.tiers else "--tier T2")
    return " ".join(parts)


def _takes_base(method: str) -> bool:
    from repsim.merging.methods import find_method

    found = find_method(method)
    return found.needs_base or found.takes_base


def interval_text(found: Interval | None) -> str:
    """An interval in words; a dash where there is none."""
    if found is None or found.low is None or found.high is None:
        return "–"
    # Outcomes below the end of the scale count as that end.
    low = "−1 or worse" if found.low <= LEAST else number(found.low)
    return f"{low} to {number(found.high)}"


def markdown(forecasts: Sequence[MergeForecast], *, figure: str = "") -> str:
    """A page on one forecast, or on many."""
    if len(forecasts) == 1:
        lines = _page_of_one(forecasts[0])
    else:
        lines = ["# Forecasts of merges", "", *_table([summary_row(f) for f in forecasts])]
        refused = [f for f in forecasts if f.refusal]
        if refused:
            lines += ["", "Refused:", ""]
            lines += [markdown_text(f"- {_whole_name(f)}: {f.refusal}") for f in refused]
    if figure:
        lines += ["", f"![forecast]({figure})"]
    lines += [
        "",
        "Retention: 1 is what the best parent of a language reaches, 0 what counting tokens "
        "reaches. A merge collapses if its worst language keeps less than half.",
        f"By {', '.join(sorted({f.predictor for f in forecasts}))}.",
    ]
    return "\n".join(lines) + "\n"


def _page_of_one(forecast: MergeForecast) -> list[str]:
    lines = [
        f"# Forecast: {markdown_name(join_parents(forecast.models))}",
        "",
        f"Method `{forecast.way}`, alignment {forecast.alignment}. **{forecast.advice}**",
    ]
    if rows := forecast_rows(forecast):
        lines += ["", *_table(rows, forecast_heads(forecast))]
    if forecast.gain:
        text = markdown_text(gain_text(forecast.gain))
        lines += ["", f"{text[0].upper()}{text[1:]}."]
    if forecast.reasons_for:
        heading = "Reasons" if not forecast.refusal else NOT_A_FORECAST.capitalize()
        lines += [
            "",
            f"## {heading}",
            "",
            *[f"- {markdown_text(reason.text)}" for reason in forecast.reasons_for],
        ]
    if forecast.reasons_against:
        said = [f"- {markdown_text(reason.text)}" for reason in forecast.reasons_against]
        lines += ["", "## In spite of", "", *said]
    near = {"retention": forecast.nearest, "gain": forecast.gain.nearest if forecast.gain else ()}
    if any(near.values()):
        rows = [
            {"merge": k.merge, "language": k.language, "kept of": outcome, "kept": k.kept,
             "distance": k.distance}
            for outcome, merges in near.items() for k in merges
        ]  # fmt: skip
        lines += ["", "## Nearest known merges", "", *_table(rows)]
    lines += ["", "## Cost", "", f"{cost_text(forecast)}."]
    if forecast.notes:
        lines += ["", "## Notes", "", *[f"- {markdown_text(note)}" for note in forecast.notes]]
    return lines


def _whole_name(forecast: MergeForecast) -> str:
    return f"{join_parents(forecast.models)}, {forecast.way}, {forecast.alignment}"


def _table(rows: Sequence[dict[str, Any]], heads: Mapping[str, str] | None = None) -> list[str]:
    named = heads or dict(zip(rows[0], rows[0], strict=True))
    cells = ([_cell(row[head]) for head in named] for row in rows)
    return markdown_lines(list(named.values()), cells)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value)
    return markdown_name(str(value))
