"""Experiments: what is claimed of recurrences, measured."""
