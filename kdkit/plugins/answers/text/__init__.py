"""Text metrics: BLEU, ROUGE-L, CIDEr, METEOR, SPICE, and the tokenizer that they share."""
