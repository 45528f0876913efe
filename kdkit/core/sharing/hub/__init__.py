"""The Hub as a place to publish: plans, one atomic commit, verified downloads."""

from kdkit.core.sharing.hub.download import Downloaded, download
from kdkit.core.sharing.hub.plan import LocalFile, UploadPlan, plan_upload
from kdkit.core.sharing.hub.upload import Uploaded, upload

__all__ = ["Downloaded", "LocalFile", "UploadPlan", "Uploaded", "download", "plan_upload", "upload"]
