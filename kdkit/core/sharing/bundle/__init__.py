"""A project as one archive, for places without network: :func:`pack` here, :func:`unpack` there.

A bundle is an uncompressed tar of plain files. The first one, the manifest, has the size and sha256 of all others.
Uncompressed, because weights and features hardly become smaller (docs/reference/bundle.md has the figures),
and so that the manifest's sizes bound what unpacking can write. No image and no caption is ever in it.
"""

from kdkit.core.sharing.bundle.contents import PARTS, Item, collect
from kdkit.core.sharing.bundle.manifest import Manifest, Share, shares
from kdkit.core.sharing.bundle.needs import missing_here, senders
from kdkit.core.sharing.bundle.packing import Packed, pack
from kdkit.core.sharing.bundle.unpacking import check, check_target, unpack

__all__ = [
    "PARTS",
    "Item",
    "Manifest",
    "Packed",
    "Share",
    "check",
    "check_target",
    "collect",
    "missing_here",
    "pack",
    "senders",
    "shares",
    "unpack",
]
