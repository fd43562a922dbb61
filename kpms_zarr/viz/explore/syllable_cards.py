"""Cards of syllables and of example bouts, as several pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kpms_zarr.store.core.access import Session
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.cards import Cards
from kpms_zarr.viz.explore.page_frame import PictureFile, card_file
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables.data import Gallery, Trajectory
from kpms_zarr.viz.syllables.drawing import extent, picture, poses_table

_ASPECT = 0.55
"""Height of the pictures by their width."""
_MARGIN_SECONDS = 1.0
"""Shown before and after a bout that is played."""


def gallery_of(state: State) -> Gallery:
    """Example bouts of the current labels; MissingData where these have no statistics."""
    study, model = state.study, state.model
    key = ("gallery", model, study.version(model))
    found: Gallery = study.remember(key, lambda: Gallery(study.opened(model)))
    return found


def pictures(gallery: Gallery, shown: Sequence[int]) -> tuple[dict[int, str], str]:
    """Typical poses of some syllables at one scale, or why there are none."""
    try:
        found = [gallery.trajectory(one) for one in shown]
    except MissingData:
        return {}, "This version of the labels has no poses to draw."
    drawn = [one for one in found if one.n_examples]
    if not drawn:
        return {}, ""
    half = extent(drawn, _ASPECT)
    label = "Typical poses of syllable {}"
    return {
        one.syllable: picture(one, half=half, label=label.format(one.syllable)) for one in drawn
    }, ""


def pictures_of(state: State, shown: Sequence[int]) -> dict[int, str]:
    """Typical poses of some syllables of the current labels; those that there are."""
    try:
        gallery = gallery_of(state)
        return pictures(gallery, [one for one in shown if one in gallery.used])[0]
    except MissingData:
        return {}


def offer_poses(cards: Cards, state: State) -> None:
    """Let the typical poses on cards of syllables be downloaded."""

    def file(syllable: int, kind: str) -> PictureFile:
        called = f"typical poses of syllable {syllable}"
        return card_file(
            state, called, kind, lambda: poses_table(gallery_of(state).trajectory(syllable))
        )

    cards.offer(file)


@dataclass(frozen=True)
class PlayableBout:
    """A bout that a click shows in the player.

    Attributes
    ----------
    syllable : int
    session : Session
    onset, stop : int
        Its first frame and the frame after its last one.
    poses : Trajectory
    """

    syllable: int
    session: Session
    onset: int
    stop: int
    poses: Trajectory


def bouts_of(gallery: Gallery, syllable: int, most: int = 8) -> list[PlayableBout]:
    """Example bouts of a syllable."""
    return [
        PlayableBout(syllable, one.session, one.onset, one.stop, poses)
        for one, poses in gallery.snapshots(syllable, most)
    ]


def bout_cards(state: State, bouts: Sequence[PlayableBout], *, has_syllable: bool = False) -> Cards:
    """Cards of bouts, which a click plays.

    Parameters
    ----------
    bouts : sequence of PlayableBout
        At least one.
    has_syllable : bool
        Whether the cards say of which syllable each is.
    """
    half = extent([one.poses for one in bouts])
    entries = []
    for key, one in enumerate(bouts):
        fps = one.session.fps
        length = 1000 * (one.stop - one.onset) / fps
        onset = state.study.clock(one.session.name).write(one.onset / fps, 1)
        where = f"{one.session.name} at {onset}"
        of = f"syllable {one.syllable}, " if has_syllable else ""
        entries.append(
            {
                "key": key,
                "number": "\u25b6 Play",
                "title": one.session.name,
                "color": syllable_color(one.syllable),
                "lines": [f"{of}at {onset}, {length:.0f} ms"],
                "hint": f"Play the bout in {where}, {of}{length:.0f} ms long",
                "picture": picture(one.poses, half=half, label=f"Poses of the bout in {where}"),
            }
        )
    cards = Cards(label="Example bouts", cards=entries, width_of_card=200)

    def file(key: int, kind: str) -> PictureFile:
        one = bouts[key]
        called = f"bout of syllable {one.syllable} from frame {one.onset}"
        return card_file(state, called, kind, lambda: poses_table(one.poses), one.session.name)

    cards.offer(file)

    def play(event: Any) -> None:
        one = bouts[event.new[1]]
        fps, session = one.session.fps, one.session
        state.show(
            session.name,
            max(0.0, one.onset / fps - _MARGIN_SECONDS),
            min(session.n_frames, one.stop + _MARGIN_SECONDS * fps) / fps,
        )
        state.page = "player"

    cards.param.watch(parts.guarded(play), "clicks")
    return cards
