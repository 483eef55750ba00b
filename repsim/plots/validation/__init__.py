"""Figures of how good forecasts are: against outcomes, against baselines, by their coverage."""
