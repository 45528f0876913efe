"""Best-of-n answers: of several answers, a dual encoder takes the one nearest to the image (SASG of ClinKD)."""
