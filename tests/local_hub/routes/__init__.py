"""The protocol, one module per topic; importing this package registers all routes."""

from tests.local_hub.routes import access, commits, content, discussions, large, refs, repositories, storage

__all__ = ["access", "commits", "content", "discussions", "large", "refs", "repositories", "storage"]
