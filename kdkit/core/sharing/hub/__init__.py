"""The Hugging Face Hub, or any server that speaks its protocol: plans, one atomic commit, verified downloads.

Nothing else in kdkit knows ``huggingface_hub``'s way of uploading; its errors become :class:`KdkitError` here.
"""

from kdkit.core.sharing.hub.connection import Account, Hub, connect
from kdkit.core.sharing.hub.download import Downloaded, download
from kdkit.core.sharing.hub.explain import explained
from kdkit.core.sharing.hub.plan import Kind, LocalFile, UploadPlan, plan_upload
from kdkit.core.sharing.hub.upload import Uploaded, upload

__all__ = [
    "Account",
    "Downloaded",
    "Hub",
    "Kind",
    "LocalFile",
    "UploadPlan",
    "Uploaded",
    "connect",
    "download",
    "explained",
    "plan_upload",
    "upload",
]
