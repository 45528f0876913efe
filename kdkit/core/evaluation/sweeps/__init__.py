"""Sweeps on disk, and their reports: variations of a project, compared over seeds."""
