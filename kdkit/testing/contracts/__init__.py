"""The contract classes, one module per family."""
