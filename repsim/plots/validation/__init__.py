"""Figures of how good forecasts are: against outcomes, against baselines, and by their promises."""
