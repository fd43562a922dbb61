"""Published labels that no fit has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model import models
from kpms_zarr.store.study.synthetic import SyntheticStudy


def publish_labels(
    store: Any,
    study: SyntheticStudy,
    model: str,
    labels: Mapping[str, np.ndarray],
    certainty: Mapping[str, np.ndarray] | None = None,
    **others: Mapping[str, np.ndarray],
) -> str:
    """Publish labels by session of some sessions of a store; returns their version.

    ``others``: further variables by frame, such as ``heading``, by session.
    """
    root = access.open_group(store, "r+")
    sessions = [one for one in access.sessions(root) if one.name in labels]
    rows = tuple(
        access.Session(one.name, row, one.n_frames, one.fps) for row, one in enumerate(sessions)
    )
    names: Sequence[str] = ("syllable", *(["certainty"] if certainty else []), *others)
    writer = models.LabelWriter(
        root, model, sessions=rows, settings=study.settings, names=tuple(names)
    )
    for block in iter_blocks(rows, writer.block_frames):
        name, part = rows[block.session].name, slice(block.start, block.stop)
        values = {"syllable": labels[name][part]}
        if certainty:
            values["certainty"] = certainty[name][part]
        values |= {key: by_session[name][part] for key, by_session in others.items()}
        writer.write(block, values)
    return writer.publish("fit", {})
