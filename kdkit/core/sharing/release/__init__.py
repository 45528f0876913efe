"""Publishing a version: a folder that works without kdkit."""
