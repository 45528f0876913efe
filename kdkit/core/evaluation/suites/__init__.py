"""Benchmark suites: public data sets as data, and their evaluation."""
