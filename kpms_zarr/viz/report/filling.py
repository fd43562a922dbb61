"""Templates of pages, filled with words and pictures of Bokeh."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from bokeh.document import Document
from bokeh.embed import components
from markupsafe import Markup

from kpms_zarr.viz.shared.embedding import bokeh_script, labels_script


def embedded(roots: Sequence[Any]) -> tuple[str, list[Markup]]:
    """One script that draws all models of Bokeh, and the place of each on the page."""
    if not roots:
        return "", []
    document = Document()
    with document.models.freeze():  # or all models are looked through again for every root
        for root in roots:
            document.add_root(root)
    script, divs = components(list(roots), wrap_script=True)
    return script, [Markup(div) for div in divs]


def filled(template: str, script: str, /, *, with_widgets: bool = False, **values: Any) -> str:
    """Fill a template of this folder.

    Parameters
    ----------
    template : str
        Name of its file.
    script : str
        That of :func:`embedded`.
    with_widgets : bool
        Whether there are controls of Bokeh on the page.
    values
        By their names in the template.
    """
    text = resources.files("kpms_zarr.viz.report").joinpath(template).read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(text).render(
        **values,
        script=Markup(script),
        bokeh=Markup(bokeh_script(with_widgets=with_widgets)),
        labels=Markup(labels_script()),
    )
