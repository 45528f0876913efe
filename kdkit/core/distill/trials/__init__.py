"""Trials: trainings that make no version. Their evaluations are compared; their students are discarded."""
