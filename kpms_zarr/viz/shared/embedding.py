"""Scripts of a page that opens without a network."""

from __future__ import annotations

from importlib import resources
from typing import Any

from bokeh.resources import Resources


def bokeh_script(*, with_widgets: bool = False) -> str:
    """The script of Bokeh itself, to put between ``<script>`` tags.

    ``Resources.render`` and ``INLINE`` would add files that Panel asks for once it is imported.
    """
    names: list[Any] = ["bokeh", "bokeh-widgets"] if with_widgets else ["bokeh"]
    return "\n".join(Resources(mode="inline", components=names, log_level="warn").js_raw)


def labels_script() -> str:
    """A script that names the controls of Bokeh which have no name of their own."""
    return resources.files("kpms_zarr.viz.shared").joinpath("labels.js").read_text("utf-8")
