"""Activations of language models: forward hooks, pooling on the fly, a store on disk."""

from repsim._lazy import lazily

#: Public name -> where it lives. torch is loaded when one of them is used.
_PUBLIC = {
    "ExtractionSettings": "repsim.activations.settings",
    "byte_aligned": "repsim.activations.byte_alignment",
    "extract": "repsim.activations.extraction",
    "extraction_key": "repsim.activations.settings",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
