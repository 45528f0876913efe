"""Features that people already have: read from their files into a column of the store, and written to files again."""
