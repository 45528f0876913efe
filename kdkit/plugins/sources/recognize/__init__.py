"""How each built-in source recognizes its data, for ``kdkit init --from``."""
