"""Choices in a browser window: the views follow them, and its URL holds them."""

from __future__ import annotations

from typing import Any

import param

from kpms_zarr.store.core.access import Session
from kpms_zarr.viz.explore.study import Study

IN_URL = (
    *("page", "model", "session", "start", "stop", "syllable", "keypoint", "by", "block"),
    *("measure", "n_left", "node", "signal"),
)
"""Parameters that a link holds."""


class State(param.Parameterized):
    """Choices that all views of one browser window share.

    A view reads them, watches those that it depends on, and sets them when a person clicks.
    Whatever comes from a URL is brought into range by :meth:`mend`.

    Attributes
    ----------
    study : Study
        The data, shared by all windows.
    """

    page = param.String("quality", doc="Page that is shown")
    model = param.String("", doc='Name of the model; "" where there is none')
    session = param.String("", doc="Name of the session")
    start = param.Number(0.0, bounds=(0, None), doc="First moment shown, in s of the session")
    stop = param.Number(0.0, bounds=(0, None), doc="End of what is shown, in s; 0 = the end")
    syllable = param.Integer(-1, doc="Chosen syllable; -1 = none")
    keypoint = param.String("", doc='Chosen keypoint; "" = none')
    by = param.String("", doc='Coordinate whose values are the groups; "" = the first there is')
    block = param.String("", doc='Coordinate of what belongs together; "" = none')
    measure = param.String("", doc='How alike syllables are; "" = by evidence')
    n_left = param.Integer(0, doc="Syllables left where the tree of all is cut; 0 = all")
    node = param.Integer(-1, doc="Chosen node of the tree of syllables; -1 = none")
    signal = param.String("", doc='Signal around onsets; "" = the first there is')
    news = param.Integer(0, doc="Goes up when the store has something new")

    def __init__(self, study: Study, **choices: Any) -> None:
        super().__init__(**choices)
        self.study, self._revision = study, study.revision
        self.mend()

    @property
    def has_model(self) -> bool:
        """Whether there is a model to look at."""
        return self.model in self.study.models

    @property
    def session_row(self) -> Session | None:
        """The chosen session as a row of ``keypoints``."""
        return self.study.sessions.get(self.session)

    @property
    def span(self) -> tuple[float, float]:
        """Span of the session that is shown, in s."""
        session = self.session_row
        end = session.n_frames / session.fps if session else 0.0
        stop = min(self.stop, end) if self.stop > 0 else end
        return (self.start, stop) if self.start < stop else (0.0, end)

    def show(self, session: str, start: float | None = None, stop: float | None = None) -> None:
        """Choose a session, and some seconds of it (default: all of it)."""
        self.param.update(session=session, start=max(0.0, start or 0.0), stop=max(0.0, stop or 0.0))

    def mend(self) -> None:
        """Replace choices that the study does not have."""
        known = self.study
        if self.model not in known.models:
            names = [*known.models, *known.unfinished]
            self.model = self.model if self.model in names else next(iter(names), "")
        if self.session not in known.sessions:
            if self.session:  # the times were those of another
                self.param.update(start=0.0, stop=0.0)
            self.session = next(iter(known.sessions), "")
        if self.keypoint not in known.settings.keypoints:
            self.keypoint = ""
        self.param.update(n_left=max(0, self.n_left), node=max(-1, self.node))
        if self.syllable >= known.n_states(self.model):
            self.syllable = -1
        session = self.session_row
        if session and not 0 <= self.start < session.n_frames / session.fps:
            self.param.update(start=0.0, stop=0.0)

    def refresh(self, *, wait: bool = True) -> None:
        """Look for something new in the store; without ``wait``, for what was found meanwhile."""
        if wait:
            self.study.refresh()
        else:
            self.study.poll()
        # Of all windows each has to notice for itself.
        if self._revision != self.study.revision:
            self._revision = self.study.revision
            self.mend()
            self.news += 1
