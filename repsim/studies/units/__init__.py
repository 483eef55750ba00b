"""What the units of a study do: train, make controls, score, measure, merge."""
