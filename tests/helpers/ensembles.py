"""A published model made into what a consensus of several publishes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.consolidation import consolidate


def make_ensemble(
    store: Any,
    model: str,
    *,
    members: Sequence[str],
    by_state: Mapping[str, np.ndarray],
    attrs: Mapping[str, float] | None = None,
    certainty: np.ndarray | None = None,
    version: str = "v1",
) -> None:
    """Add to labels what tells how far they replicate, and to parameters who has voted.

    Parameters
    ----------
    members : sequence of str
        Names of models, whose first version has voted.
    by_state : mapping
        Variables of the labels (state,); shorter ones are filled up with NaN or -1.
    attrs : mapping, optional
        Attributes of the labels.
    certainty : ndarray, (session, frame), optional
    """
    root = access.open_group(store, "r+")
    labels = root[f"models/{model}/labels/{version}"]
    n_states = labels["frequency"].shape[0]
    for name, values in by_state.items():
        values = np.asarray(values)
        missing = -1 if values.dtype.kind == "i" else np.nan
        full = np.append(values, np.full(n_states - len(values), missing, values.dtype))
        labels.create_array(name, data=full, dimension_names=["state"])
    if certainty is not None:
        labels.create_array(
            "certainty",
            data=certainty.astype(np.float16),
            chunks=labels["syllable"].chunks,
            fill_value=np.float16("nan"),
            dimension_names=["session", "frame"],
        )
    made = attributes.read(labels.attrs)["provenance"]
    made = {**made, "action": "consensus"}
    made["settings"] = {**made["settings"], "models": [f"{name}@v1" for name in members]}
    attributes.write(labels, {**(attrs or {}), "provenance": made})
    parameters = root[f"models/{model}/parameters/{version}"]
    for name, values in {"member": list(members), "member_version": ["v1"] * len(members)}.items():
        array = parameters.create_array(
            name, shape=(len(members),), dtype=str, dimension_names=["member"]
        )
        array[:] = np.asarray(values, dtype=object)
    consolidate(root, [f"models/{model}"])
