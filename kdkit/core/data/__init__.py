"""Samples: from the registry's data entries to one table."""

from kdkit.core.data.load import load_table
from kdkit.core.data.prompts import prompt_sets
from kdkit.core.data.table import SampleTable

__all__ = ["SampleTable", "load_table", "prompt_sets"]
