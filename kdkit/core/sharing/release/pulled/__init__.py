"""What a pulled release becomes: checks, the project's registry, its version."""
