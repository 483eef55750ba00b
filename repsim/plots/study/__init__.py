"""Figures of an atlas: what a study found about merging. `FIGURES["atlas_forks"](atlas)` draws."""
