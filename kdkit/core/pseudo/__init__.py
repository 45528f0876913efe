"""Pseudo-labels: a trusted teacher answers questions that nobody has answered, and the answers become data."""
