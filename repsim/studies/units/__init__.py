"""What the units of a study do: train, make controls, score, measure, merge.

Each is a function of its specification, of the results of the units that it needs, and of a
workspace that holds the models. Results are JSON-able; that is all that an atlas is made of.
"""
