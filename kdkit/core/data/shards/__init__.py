"""``kdkit data shards``: the samples of a data entry as WebDataset shards.

:mod:`opened` gives the rows of an entry and the bytes of their images, :mod:`members` the files of a row in a shard,
:mod:`tar` a shard, :mod:`read_back` its proof, :mod:`manifest` what is done, :mod:`plan` and :mod:`write` the command.
"""

from kdkit.core.data.shards.plan import plan_shards
from kdkit.core.data.shards.request import ShardRequest
from kdkit.core.data.shards.write import write_shards

__all__ = ["ShardRequest", "plan_shards", "write_shards"]
