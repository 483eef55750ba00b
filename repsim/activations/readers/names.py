"""Names of arrays in the dumps of other tools -> hook point and layer, as they are called here."""

from __future__ import annotations

import re

#: Pattern of a name -> hook point, and what is added to the number of the block. Layer 0 of the
#: residual stream is the embedding, layer i the output of block i, which others call i - 1.
_KNOWN: tuple[tuple[str, str, int], ...] = (
    # Our own files.
    (r"(?P<own>embed|resid|attn|mlp|heads|mlp_hidden)\.(\d\d+)", "", 0),
    # TransformerLens: `blocks.3.hook_resid_post`.
    (r"blocks\.(\d+)\.hook_resid_post", "resid", 1),
    (r"blocks\.(\d+)\.hook_resid_pre", "resid", 0),
    (r"blocks\.(\d+)\.hook_resid_mid", "resid_mid", 1),
    (r"blocks\.(\d+)\.hook_attn_out", "attn", 1),
    (r"blocks\.(\d+)\.hook_mlp_out", "mlp", 1),
    (r"blocks\.(\d+)\.(?:mlp\.hook_post)", "mlp_hidden", 1),
    # transformers: `output_hidden_states=True`.
    (r"hidden_states\.(\d+)", "resid", 0),
    # Paths of modules, as nnsight and hooks of torch name them: `model.layers.3.output.0`.
    (r"(?:.*\.)?(?:layers?|h|blocks?)\.(\d+)(?:\.outputs?(?:\.0)?)?", "resid", 1),
    (r"(?:.*\.)?(?:layers?|h|blocks?)\.(\d+)\.(?:self_attn|attn|attention)(?:\.outputs?(?:\.0)?)?",
     "attn", 1),
    (r"(?:.*\.)?(?:layers?|h|blocks?)\.(\d+)\.mlp(?:\.outputs?(?:\.0)?)?", "mlp", 1),
    # Arrays that are only numbered: `0`, `layer_3`, `arr_0`.
    (r"(?:arr|layers?|l|hidden|hidden_states?|resid)?[_-]?(\d+)", "", 0),
)  # fmt: skip
#: Names of tools whose arrays `[a, b, c]` are batches of sentences by tokens by units.
_BATCHES = re.compile(
    r"blocks\.\d+\.hook_|hidden_states\.\d+$|(.*\.)?(layers?|h|blocks?)\.\d+(\.|$)"
)
#: Arrays beside the activations.
BESIDE = ("token_ids", "input_ids", "tokens", "attention_mask", "mask", "lengths", "rows", "labels",
          "position_ids")  # fmt: skip
#: Names of axes in files that name them -> ours.
AXES = {
    "row": "row", "sentence": "row", "sample": "row", "stimulus": "row", "presentation": "row",
    "batch": "row", "item": "row", "image": "row", "token": "token", "position": "token",
    "pos": "token", "time": "token", "layer": "layer", "unit": "unit", "neuron": "unit",
    "neuroid": "unit", "feature": "unit", "hidden": "unit", "dim": "unit", "d_model": "unit",
}  # fmt: skip


def point_and_layer(name: str) -> tuple[str, int] | None:
    """Hook point and layer of an array, by its name; None if no tool is known to use it."""
    for pattern, point, added in _KNOWN:
        if found := re.fullmatch(pattern, name):
            return found.groupdict().get("own") or point, int(found.groups()[-1]) + added
    return None


def is_batch(name: str) -> bool:
    """Whether a tool is known by this name that stores `[sentence, token, unit]`."""
    return bool(_BATCHES.match(name))


def axes_of(names: tuple[str, ...]) -> tuple[str, ...]:
    """Axes by the names that a file gives them; empty if it leaves one out that we know."""
    known = tuple(AXES.get(name.lower().rstrip("s"), AXES.get(name.lower(), "")) for name in names)
    return known if all(known) and len(set(known)) == len(known) else ()
