"""Whole jobs made of the steps below: a comparison from model names to a report."""
