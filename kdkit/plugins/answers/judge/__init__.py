"""A language model behind an endpoint as a judge of answers: the task ``judge``."""
