"""Views of a model as public functions of a store and the name of the model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.viz.shared.opened import ModelLike, OpenModel
from kpms_zarr.viz.shared.style import load

T = TypeVar("T")

_PARAMETERS = """Parameters
----------
store : path or URL
model : str or OpenModel
version : str, optional
    Of the labels (default: the current one).
"""
_RAISES = """Raises
------
InputError
    For a model, or anything else that is asked for, that does not exist.
"""


def view(draw: Callable[..., T]) -> Callable[..., T]:
    """Make a public view of a function that draws something of an open model.

    In place of that model, its first parameter, the view takes ``store, *, model, version=None``;
    so say its signature and its documentation.
    """

    def public(
        store: StoreLike, *, model: ModelLike, version: str | None = None, **options: Any
    ) -> T:
        load()
        return draw(OpenModel.of(store, model, version), **options)

    own = inspect.signature(public).parameters
    drawn = inspect.signature(draw)
    parameters = [own[name] for name in ("store", "model", "version")]
    parameters += list(drawn.parameters.values())[1:]
    functools.update_wrapper(public, draw)
    public.__signature__ = drawn.replace(parameters=parameters)  # type: ignore[attr-defined]
    doc = inspect.cleandoc(draw.__doc__ or "")
    if "Parameters\n-" not in doc:
        doc = doc.replace("Returns\n-------\n", "Parameters\n----------\n\nReturns\n-------\n")
    doc = doc.replace("Parameters\n----------\n", _PARAMETERS, 1)
    head, _, errors = doc.partition("Raises\n------\n")
    public.__doc__ = f"{head.rstrip()}\n\n{_RAISES}{errors}".rstrip()
    return public
