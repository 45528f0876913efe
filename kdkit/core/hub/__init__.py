"""The Hugging Face Hub, or any server that speaks its protocol: plans, one atomic commit, verified downloads.

Nothing else in kdkit knows ``huggingface_hub``'s way of uploading; its errors become :class:`KdkitError` here.
"""

from kdkit.core.hub.connection import Account, Hub, connect
from kdkit.core.hub.download import Downloaded, download
from kdkit.core.hub.explain import explained
from kdkit.core.hub.plan import Kind, LocalFile, UploadPlan, plan_upload
from kdkit.core.hub.upload import Uploaded, upload

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
