"""Access to the Hugging Face Hub, or a server with its protocol: endpoint, token, errors, retries."""

from kdkit.core.base.hub.connection import Account, Hub, Kind, connect
from kdkit.core.base.hub.errors import hub_errors
from kdkit.core.base.hub.retry import with_retries

__all__ = ["Account", "Hub", "Kind", "connect", "hub_errors", "with_retries"]
