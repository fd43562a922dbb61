"""Access to the internals of zarr, which zarr does not promise to keep: all of it is here.

Reading many small objects at once, and listing or deleting below a key, have no public call in zarr
3 that is not a coroutine.
"""

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

__all__ = ["default_buffer_prototype", "sync"]
