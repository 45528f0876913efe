"""Definitions of the built-in benchmark suites: the YAML files of this folder."""
