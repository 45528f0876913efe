"""``python -m docs.generate`` writes the generated pages."""

from docs.generate import write

write()
