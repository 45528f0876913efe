"""Maps from teachers' feature spaces to a common one: fitting and comparison."""
