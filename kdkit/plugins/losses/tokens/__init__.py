"""Losses of generating students: per answer token, from hidden states, without logits of all tokens at once."""
