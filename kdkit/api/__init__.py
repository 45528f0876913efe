"""The Python interface: :class:`kdkit.Project` has one method per command, which returns what ``--json`` prints."""
