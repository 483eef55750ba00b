"""Contract kits and tiny models, for the tests of this package and of those that extend it."""

from repsim._lazy import lazily

#: Public name -> module that holds it, imported on first use.
_LATER = {
    "check_arch": "repsim.testing.arch_checks",
    "check_measure": "repsim.testing.measure_checks",
    "check_symmetries": "repsim.testing.symmetry_checks",
    "check_merge_method": "repsim.testing.merge_checks",
}

__getattr__, __dir__, __all__ = lazily(__name__, _LATER)
