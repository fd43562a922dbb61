"""The command ``kpms-zarr``: see README.md beside this file."""

from kpms_zarr.cli.entry import main, parser

__all__ = ["main", "parser"]
