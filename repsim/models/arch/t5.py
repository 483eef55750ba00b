"""Encoders of T5 and mT5: pre-norm, relative positions inside attention, no biases.

Only the encoder is loaded and run; the decoder and the language-model head are left in the file.
"""

from __future__ import annotations

from repsim.models.arch.base import ArchSpec

T5 = ArchSpec(
    name="t5",
    model_types=("t5", "mt5"),
    decoder=False,
    body_path="encoder",
    blocks="block",
    attn="layer.0.SelfAttention.o",
    heads="layer.0.SelfAttention.o",
    mlp="layer.1.DenseReluDense.wo",
    mlp_hidden="layer.1.DenseReluDense.wo",
    norm="final_layer_norm",
    auto_class="AutoModelForTextEncoding",
)
