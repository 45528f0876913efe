"""Selective generation (ClinKD's SASG): of several answers, the one that a dual encoder finds nearest to the image."""
