"""Evaluation: scores of models, comparison, retention and reports. Imports no torch."""
