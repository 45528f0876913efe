"""``kdkit explain``: what a version's student would be without each source of its knowledge."""
