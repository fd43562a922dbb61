"""Epochs of sessions as coloured bands over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import holoviews as hv

from kpms_zarr.store.core.access import Session
from kpms_zarr.store.study.epochs import SessionEpochs
from kpms_zarr.viz.shared.colors import group_color
from kpms_zarr.viz.shared.style import hover_tool, short


class EpochBand(NamedTuple):
    """An interval of an epoch of a session.

    Attributes
    ----------
    start, stop : float
        In s of the session.
    epoch, condition : str
    color : str
        Of the condition, or of the epoch where it has none.
    """

    start: float
    stop: float
    epoch: str
    condition: str
    color: str

    @property
    def name(self) -> str:
        """What stands in it: the epoch, and its condition where that says more."""
        if not self.condition or self.epoch.startswith(self.condition):
            return self.epoch
        return f"{self.epoch}: {self.condition}" if self.epoch else self.condition


def epoch_colors(epochs: Mapping[str, SessionEpochs]) -> dict[str, str]:
    """Colour of each condition of a study, and of epochs without one."""
    kinds = {
        condition or epoch
        for one in epochs.values()
        for epoch, condition in zip(one.names, one.conditions, strict=True)
    }
    return {kind: group_color(number) for number, kind in enumerate(sorted(kinds))}


def epoch_bands(epochs: Mapping[str, SessionEpochs], session: Session) -> tuple[EpochBand, ...]:
    """Bands of a session, in the order of time; none where it has no epochs.

    Parameters
    ----------
    epochs : mapping of str to SessionEpochs
        Of all sessions of the study, by which colours go.
    session : Session
    """
    one = epochs.get(session.name)
    if one is None:
        return ()
    colors, found = epoch_colors(epochs), []
    for start, stop, place in zip(
        one.start.tolist(), one.stop.tolist(), one.epoch.tolist(), strict=True
    ):
        name, condition = one.names[place], one.conditions[place]
        stop = min(stop, session.n_frames)
        if start < stop:
            found.append(
                EpochBand(
                    start / session.fps, stop / session.fps, name, condition,
                    colors[condition or name],
                )
            )  # fmt: skip
    return tuple(found)


def draw_bands(
    bands: tuple[EpochBand, ...], start: float, stop: float, low: float, high: float
) -> hv.Overlay:
    """Bands between two moments (s) as boxes between two heights, with their names."""
    seen = [one for one in bands if one.stop > start and one.start < stop]
    boxes = [
        (max(one.start, start), low, min(one.stop, stop), high, one.color, one.name) for one in seen
    ]
    texts = [
        ((x0 + x1) / 2, (low + high) / 2, short(name, max(3, int(90 * (x1 - x0) / (stop - start)))))
        for x0, _, x1, _, _, name in boxes
        if 90 * (x1 - x0) > 3 * (stop - start)
    ]
    hover = hover_tool(("epoch", "@epoch"))
    drawn = hv.Rectangles(boxes, kdims=["x0", "y0", "x1", "y1"], vdims=["color", "epoch"]).opts(
        color="color", alpha=0.55, line_color="white", tools=[hover]
    )
    named = hv.Labels(texts, kdims=["x", "y"], vdims=["text"]).opts(
        text_color="#1f2933", text_font_size="11px"
    )
    return drawn * named
