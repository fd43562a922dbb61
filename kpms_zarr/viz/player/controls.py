"""Buttons, choices and their place around the figures of a player."""

from __future__ import annotations

from typing import Any

from bokeh.models import Column, ColumnDataSource, InlineStyleSheet, Row
from bokeh.models.widgets import Button, CheckboxButtonGroup, Div, Select, Slider

from kpms_zarr.viz.player.clocks import frame_clock
from kpms_zarr.viz.player.data import OpenSession, PlayerWindow
from kpms_zarr.viz.player.figures import DENOISED, OVERLAY, TRACKED
from kpms_zarr.viz.shared.style import FONT, INK, MUTED

LATENT = "latent pose"
"""Choice of the last trace beside the keypoints."""

SPEEDS = ("0.1", "0.25", "0.5", "1", "2", "4")
VIEWS = ("Egocentric", "Centred", "Arena")

KEYS = (
    ("Space", "plays and pauses"),
    ("\u2190 \u2192", "one frame back or on; with Shift ten"),
    ("Home End", "first and last frame of the window"),
)
"""Keys of a player that has the focus, and what they do."""

_KEYS = "Keys: space plays, arrows step (with shift: 10 frames), Home and End."
_TIME = ("epochs", "strip", "certainty", "speed", "heading", "detail")


def controls(
    opened: OpenSession,
    window: PlayerWindow,
    frames: ColumnDataSource,
    *,
    keypoint: str,
    with_video: bool,
    is_served: bool,
) -> dict[str, Any]:
    """Widgets by name; all have a label and can be reached by keyboard.

    Parameters
    ----------
    frames : ColumnDataSource
        Of the window: the slider writes times from it.
    """
    first, last = int(window.frame[0]), int(window.frame[-1])
    speeds: list[Any] = [(one, f"{one}×") for one in SPEEDS]
    widgets: dict[str, Any] = {
        "play": Button(label="Play", button_type="primary", width=76),
        "back_10": _button("Back 10"),
        "back_1": _button("Back 1"),
        "forward_1": _button("Forward 1"),
        "forward_10": _button("Forward 10"),
        "speed": Select(title="Speed", value="1", options=speeds, width=76),
        "view": _view(window),
        "shown": _shown(window, with_video),
        "detail": _detail(window, keypoint),
        "frame": Slider(
            title="Time",
            format=frame_clock(frames),
            start=first,
            end=max(last, first + 1),
            value=first,
            step=1,
            sizing_mode="stretch_width",
        ),
        "readout": Div(text="", sizing_mode="stretch_width", stylesheets=[_text(INK, 14)]),
    }
    if window.syllable is not None:
        widgets["syllable"] = _syllable(opened)
        widgets["previous_bout"] = _button("Previous bout")
        widgets["next_bout"] = _button("Next bout")
    if window.n_space == 3:
        widgets["azimuth"] = Slider(title="Seen from (°)", start=-180, end=180, value=30, width=170)
        widgets["elevation"] = Slider(title="From above (°)", start=0, end=90, value=25, width=170)
    if is_served:
        widgets["previous_window"] = _button("Previous window")
        widgets["next_window"] = _button("Next window")
        widgets["link"] = _button("Link to this moment")
    return widgets


def layout(figures: dict[str, Any], widgets: dict[str, Any]) -> Column:
    """Controls above the figures, those of space above those of time."""
    moves = ("play", "back_10", "back_1", "forward_1", "forward_10", "speed", "view")
    finds = ("syllable", "previous_bout", "next_bout")
    shows = ("shown", "azimuth", "elevation", "previous_window", "next_window", "link")
    space = [figures[name] for name in ("pose", "video", "arena") if name in figures]
    children = [
        _row([widgets[name] for name in (*moves, *finds) if name in widgets]),
        _row([widgets[name] for name in shows if name in widgets]),
        widgets["frame"],
        widgets["readout"],
        Row(children=space, sizing_mode="stretch_width"),
        *(figures[name] for name in _TIME if name in figures),
        _row([widgets["detail"], Div(text=_KEYS, stylesheets=[_text(MUTED, 13)])]),
    ]
    return Column(
        children=children,
        sizing_mode="stretch_width",
        stylesheets=[InlineStyleSheet(css=_FOCUS)],
    )


def _view(window: PlayerWindow) -> Select:
    """Choice of the view; without a heading nothing can be turned to it."""
    views: list[Any] = list(VIEWS if window.heading is not None else VIEWS[1:])
    return Select(title="View", value=views[0], options=views, width=116)


def _syllable(opened: OpenSession) -> Select:
    options: list[Any] = [("-1", "any syllable")]
    options += [(str(one), opened.names.label(one)) for one in sorted(opened.syllables)]
    return Select(title="Bouts of", value="-1", options=options, width=130)


def _shown(window: PlayerWindow, with_video: bool) -> CheckboxButtonGroup:
    names = [TRACKED]
    names += [DENOISED] if window.denoised is not None else []
    names += [OVERLAY] if with_video and window.n_space == 2 else []
    return CheckboxButtonGroup(labels=names, active=list(range(len(names))), align="end")


def _detail(window: PlayerWindow, keypoint: str) -> Select:
    names: list[Any] = list(window.keypoints)
    names += [LATENT] if window.latent is not None and window.latent.shape[1] else []
    value = keypoint if keypoint in names else (window.model_keypoints or window.keypoints)[0]
    return Select(title="Last trace", value=value, options=names, width=160)


def _button(label: str) -> Button:
    return Button(label=label, align="end", width_policy="min")


def _row(children: list[Any]) -> Row:
    for child in children:
        child.align = "end"
    return Row(children=children, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


def _text(color: str, size: int) -> InlineStyleSheet:
    return InlineStyleSheet(css=f":host {{ font: {size}px {FONT}; color: {color}; }}")


_FOCUS = (
    ":host(:focus) { outline: none; } "
    ":host(:focus-visible) { outline: 2px solid #0b5394; outline-offset: 3px; }"
)
