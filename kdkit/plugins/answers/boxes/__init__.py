"""Boxes in answers: how families of models write them, and how they are scored."""
