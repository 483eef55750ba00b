"""Activations that other tools have written: formats, names and manifests, one result."""

from repsim._lazy import lazily

#: Public name -> where it lives.
_PUBLIC = {
    "DumpWarning": "repsim.activations.readers.dump",
    "FORMATS": "repsim.activations.readers.formats",
    "Manifest": "repsim.activations.readers.manifest",
    "read_dump": "repsim.activations.readers.dump",
}

__getattr__, __dir__, __all__ = lazily(__name__, _PUBLIC)
