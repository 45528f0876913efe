"""Repair of a student that breaks the guard: weights between the parent's and its own, and more rehearsal."""
