"""Writes whole plugin packages: what ``kdkit new-plugin`` calls."""
