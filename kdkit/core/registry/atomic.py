"""For a moment only: see :mod:`kdkit.core.atomic`."""

from kdkit.core.atomic import disk_errors as disk_errors
from kdkit.core.atomic import write_atomically as write_atomically
