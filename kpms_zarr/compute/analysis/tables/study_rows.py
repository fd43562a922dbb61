"""Rows of tables: a session and an epoch of it, with all that is known of the session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.schema import KEYPOINTS
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.annotate import named_sessions
from kpms_zarr.store.ingest.epoch_tables import EpochsLike, is_none, name_of, read_epochs
from kpms_zarr.store.study.epochs import SessionEpochs, check_epochs, stored_epochs
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.study.timestamps import SessionTimes, StudyTimes
from kpms_zarr.store.wording import listed

_SHOWN = ("individual",)
"""Columns of the store's own table that say something about the animal."""


class EpochSession(NamedTuple):
    """A session and its epochs.

    Attributes
    ----------
    session : Session
        Its index is that in the labels.
    epochs : SessionEpochs
    first : int
        Row of the first of its epochs; the others follow.
    first_frame, frame_step : int
        Frame of the video = first_frame + frame_step * frame.
    times : SessionTimes
        Of its frames.
    """

    session: Session
    epochs: SessionEpochs
    first: int
    first_frame: int
    frame_step: int
    times: SessionTimes


@dataclass(frozen=True)
class StudyRows:
    """Rows of tables.

    Attributes
    ----------
    sessions : tuple of EpochSession
        Labelled sessions in the order of the labels, their epochs in the order of time.
    coordinates : dict of str to ndarray, (row,)
        ``session``, ``epoch``, ``condition``, and what people said of the sessions: text or
        numbers.
    version : str
        Of the epochs of the store; "" where they are not from there.
    notes : tuple of str
    """

    sessions: tuple[EpochSession, ...]
    coordinates: Mapping[str, np.ndarray]
    version: str
    notes: tuple[str, ...]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.coordinates["session"])


def study_rows(
    store: StoreLike,
    labels: PosedLabels,
    *,
    epochs: EpochsLike | None,
    sessions: Sequence[str] | None = None,
    taken: Sequence[str] = (),
) -> StudyRows:
    """Find the rows of tables of some labels.

    Parameters
    ----------
    store : path or URL
    labels : PosedLabels
    epochs : path, DataFrame, mapping, ``"none"`` or None
        See :func:`kpms_zarr.epochs`; None = those of the store.
    sessions : sequence of str, optional
        Names, patterns, ``coordinate=value`` (default: all that have labels).
    taken : sequence of str
        Names of other columns: a coordinate of that name is called ``session_NAME``.

    Raises
    ------
    InputError
        Wrong epochs or selectors; selected sessions of which none has labels.
    """
    root = access.open_group(store)
    there = {session.name: session for session in access.sessions(root)}
    labelled = list(labels.sessions)
    if sessions is not None:
        wanted = {session.name for session in select_sessions(root, sessions, "`sessions=`")}
        labelled = [session for session in labelled if session.name in wanted]
    if not labelled:
        raise InputError(
            expected=f"sessions that model {labels.model!r} has labels of",
            found="none of these" if sessions is not None else "none",
            where="`sessions=`" if sessions is not None else f"model {labels.model!r}",
            fix=f"label them: `kpms_zarr.apply(STORE, model={labels.model!r})`",
        )
    times = StudyTimes(root)
    version, notes, where = "", list[str](), "`epochs=`"
    found: Mapping[str, SessionEpochs] = {}
    if epochs is None:
        version, found = stored_epochs(root)
        where = f"{store}, {layout.EPOCHS}/{version}"
    elif not is_none(epochs):
        found, notes = read_epochs(epochs, tuple(there.values()), named_sessions(root), times)
        where = name_of(epochs) or where
    every = check_epochs(found, labelled, where)
    if found:
        whole = [session.name for session in labelled if session.name not in found]
        notes += [f"sessions without epochs, taken whole: {listed(whole)}"] if whole else []
        n_out = sum(session.n_frames - every[session.name].n_frames for session in labelled)
        notes += [f"{n_out:,} frames are in no epoch, and in no table"] if n_out else []
    notes += times.notes(labelled)
    columns = _session_columns(root, labelled, there)
    steps = {
        name: columns.pop(name, np.full(len(labelled), default))
        for name, default in (("first_frame", 0), ("frame_step", 1))
    }
    first = np.cumsum([0, *(len(every[session.name].names) for session in labelled)])
    rows = tuple(
        EpochSession(
            session, every[session.name], int(first[n]),
            int(steps["first_frame"][n]), int(steps["frame_step"][n]), times.of(session),
        )
        for n, session in enumerate(labelled)
    )  # fmt: skip
    return StudyRows(rows, _coordinates(rows, columns, taken), version, tuple(notes))


def _session_columns(
    root: access.Group, labelled: Sequence[Session], there: Mapping[str, Session]
) -> dict[str, np.ndarray]:
    """What the store says of labelled sessions, (session,) each: the fill where it has gone."""
    group = access.keypoints_group(root)
    own = {var.name for var in KEYPOINTS} - {*_SHOWN, "first_frame", "frame_step"}
    found = {}
    for name, array in access.arrays_below(group) if group is not None else ():
        if name in own or getattr(array.metadata, "dimension_names", None) != ("session",):
            continue
        values = np.asarray(array[:])
        values = values if values.dtype.kind in "iuf" else values.astype(object)
        empty = "" if values.dtype == object else array.fill_value
        places = [there[s.name].index if s.name in there else len(values) for s in labelled]
        column = [values[place] if place < len(values) else empty for place in places]
        if name in _SHOWN and not any(map(str, column)):
            continue
        is_text = values.dtype == object
        found[name] = np.array([str(v) for v in column] if is_text else column, values.dtype)
    return found


def _coordinates(
    rows: Sequence[EpochSession], columns: Mapping[str, np.ndarray], taken: Sequence[str]
) -> dict[str, np.ndarray]:
    of = np.repeat(np.arange(len(rows)), [len(one.epochs.names) for one in rows])
    text: dict[str, Iterator[str]] = {
        "session": (one.session.name for one in rows for _ in one.epochs.names),
        "epoch": (name for one in rows for name in one.epochs.names),
        "condition": (said for one in rows for said in one.epochs.conditions),
    }
    found = {name: np.array(list(values), dtype=object) for name, values in text.items()}
    if "condition" in columns and columns["condition"].dtype == object:
        # Of a session that is one epoch, its own condition is that of the epoch.
        is_whole = found["epoch"] == ""
        found["condition"] = np.where(is_whole, columns["condition"][of], found["condition"])
    for name, values in columns.items():
        is_taken = name in found or name in taken
        found[f"session_{name}" if is_taken else name] = values[of]
    return found
