"""Samples: from the registry's data entries to one index."""

from kdkit.core.data.index import SampleIndex
from kdkit.core.data.load import load_index
from kdkit.core.data.prompts import prompt_sets

__all__ = ["SampleIndex", "load_index", "prompt_sets"]
