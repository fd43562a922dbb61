"""Cards of a report: what each syllable looks like, how often it is, and what is beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from markupsafe import Markup

from kpms_zarr.store.model.syllable_names import SyllableNames
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.grouping import group_coordinates, groups_of
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.style import short
from kpms_zarr.viz.syllables.agreement import replicability_lines
from kpms_zarr.viz.syllables.data import Gallery, session_frames
from kpms_zarr.viz.syllables.drawing import extent, picture
from kpms_zarr.viz.syllables.transition_counts import neighbours_of

_ASPECT = 0.55
_N_EXAMPLES = 4
_N_NEIGHBOURS = 3
_MOST_GROUPS = 4
_TIED = "\u00a0"
"""A space at which no line ends."""
_EXAMPLE_BUDGET = 3_000_000
"""Characters of pictures of example bouts; syllables after that are shown without."""


@dataclass(frozen=True)
class ExamplePicture:
    """One bout of a syllable: where it is in words, and its picture (SVG)."""

    caption: str
    picture: Markup


@dataclass(frozen=True)
class Card:
    """Facts and pictures of a report about one syllable.

    Attributes
    ----------
    picture : Markup
        Typical poses from the onset on (SVG); "" when there are no bouts long enough.
    lines : tuple of (str, str)
        Name and value.
    examples : tuple of Example
        Empty where the page would become too large, and where ``picture`` is.
    """

    number: int
    title: str
    description: str
    color: str
    picture: Markup
    lines: tuple[tuple[str, str], ...]
    examples: tuple[ExamplePicture, ...]


def cards(opened: OpenModel) -> list[Card]:
    """A card for each syllable in use, the most frequent first.

    Raises
    ------
    MissingData
        When the version has no poses or no statistics.
    """
    gallery = Gallery(opened)
    labels, called = opened.labels_with("transition_count"), opened.names
    of_group = _group_shares(opened)
    typical = [gallery.trajectory(state) for state in gallery.used]
    half = extent(typical, _ASPECT)
    found, n_characters = [], 0
    for one in typical:
        state = one.syllable
        examples: tuple[ExamplePicture, ...] = ()
        if n_characters < _EXAMPLE_BUDGET:
            examples = _examples(gallery, state)
            n_characters += sum(len(example.picture) for example in examples)
        seen = f"Typical poses of syllable {called.label(state)}, lighter ones earlier"
        found.append(
            Card(
                state,
                called.label(state),
                called.description(state),
                syllable_color(state),
                Markup(picture(one, half=half, label=seen) if one.n_examples else ""),
                (
                    *_lines(labels, called, state),
                    *replicability_lines(opened, state),
                    *of_group.get(state, ()),
                ),
                examples,
            )
        )
    return found


def _examples(gallery: Gallery, state: int) -> tuple[ExamplePicture, ...]:
    found = gallery.snapshots(state, _N_EXAMPLES)
    if not found:
        return ()
    half = extent([poses for _, poses in found], _ASPECT)
    captions = [
        f"{short(example.session.name, 24)}, {example.onset / example.session.fps:,.1f} s, "
        f"{1000 * example.seconds:.0f} ms"
        for example, _ in found
    ]
    return tuple(
        ExamplePicture(caption, Markup(picture(poses, half=half, label=f"Bout of {caption}")))
        for caption, (_, poses) in zip(captions, found, strict=True)
    )


def _lines(labels: xr.Dataset, called: SyllableNames, state: int) -> list[tuple[str, str]]:
    share = 100 * float(labels["frequency"][state])
    median, n_bouts = float(labels["median_duration"][state]), int(labels["n_bouts"][state])
    changes = labels["transition_count"].values
    before, after = neighbours_of(changes, state, max_neighbours=_N_NEIGHBOURS)
    lines = [
        ("frames", f"{share:.1f} %"),
        ("bouts", f"{n_bouts:,}"),
        ("median", f"{median:,.0f} ms" if np.isfinite(median) else "–"),
    ]
    for name, side in (("before", before), ("after", after)):
        words = [
            f"{short(called.label(int(one)), 20)}{_TIED}({part:.0f}{_TIED}%)"
            for one, part in zip(side.syllable, side.share, strict=True)
        ]
        lines += [(name, ", ".join(words))] if words else []
    return lines


def _group_shares(opened: OpenModel) -> dict[int, list[tuple[str, str]]]:
    """Mean share of each syllable in each group of sessions, where the study has groups."""
    labels, table = opened.labels, opened.tracked
    coordinates = group_coordinates(table)
    if not coordinates:
        return {}
    frames = session_frames(labels)
    total = frames.sum(1)
    names = [str(name) for name in labels["session"].values]
    group = np.asarray(groups_of(names, table, coordinates[0]), dtype=object)
    share = 100 * frames / np.maximum(total, 1)[:, None]
    means = {
        name: share[(group == name) & (total > 0)].mean(0) for name in _largest(group[total > 0])
    }
    return {
        state: [
            (f"{coordinates[0]} {short(name, 16)}", f"{mean[state]:.1f} %")
            for name, mean in means.items()
        ]
        for state in range(frames.shape[1])
    }


def _largest(group: Sequence[str] | np.ndarray) -> list[str]:
    """Names of the groups with most sessions, in order of name."""
    names, count = np.unique(np.asarray(group).astype(str), return_counts=True)
    return sorted(names[np.argsort(-count, kind="stable")[:_MOST_GROUPS]].tolist())
