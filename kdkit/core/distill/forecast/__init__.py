"""Time, memory and disk of a run on other devices or more of them, with the arithmetic."""
