"""NWB files: keypoints as ndx-pose has them, labels by frame, bouts as ndx-ethogram has them.

Layouts: the specifications of NWB 2, ndx-pose 0.2 and ndx-ethogram 0.1.
"""

from __future__ import annotations

import json
import re
import uuid
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.export.packages import has_package, package
from kpms_zarr.store.export.source import ExportedSession, ExportSource

_FRAMES_PER_CHUNK = 16_384
_START_TIMES = ("session_start_time", "start_time", "date")
_SUBJECT = {
    "subject_id": ("subject_id", "subject", "animal", "mouse", "individual"),
    "species": ("species",),
    "sex": ("sex",),
    "age": ("age",),
    "genotype": ("genotype",),
    "strain": ("strain",),
}
"""Field of NWB -> coordinates of the store that it is taken from, the first that is known."""
_UNITS = {
    "pixels": ("px", "pixel", "pixels"),
    "millimeters": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "centimeters": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
    "meters": ("m", "meter", "meters", "metre", "metres"),
    "micrometers": ("um", "µm", "μm", "micrometer", "micrometers", "micrometre", "micrometres"),
}
"""Units that NWB knows, and how people call them."""
_NO_CORNER = "the origin of the tracking file, usually the upper left corner of the picture"


class Writer:
    """Writer of the sessions of a model, one file each.

    Parameters
    ----------
    source : ExportSource
    start_time : str, optional
        Of all sessions, ISO 8601.

    Raises
    ------
    InputError
        When pynwb or ndx-pose is not installed, or a time is none.
    """

    def __init__(self, source: ExportSource, start_time: str | None = None) -> None:
        self._nwb, self._pose = (package(name, "NWB", "nwb") for name in ("pynwb", "ndx_pose"))
        self._io = package("hdmf.backends.hdf5.h5_utils", "NWB", "nwb")
        self._ethogram = None
        if has_package("ndx_ethogram"):
            self._ethogram = package("ndx_ethogram", "NWB", "nwb")
        else:
            source.notes.append(
                "ndx-ethogram is not installed: bouts are TimeIntervals with the column label "
                "(pip install 'kpms_zarr[nwb]')"
            )
        if not all(one.text(*_SUBJECT["subject_id"]) for one in source.sessions):
            source.notes.append(
                "no subject known of some sessions: columns subject_id, species, sex and age of "
                "`kpms_zarr.annotate` are written as such"
            )
        self._starts = {one.name: _start_time(source, one, start_time) for one in source.sessions}

    def write(self, source: ExportSource, session: ExportedSession, path: Path) -> None:
        """Write a session: what is small first, then the frames, block by block."""
        start = self._starts[session.name]
        file = self._nwb.NWBFile(
            session_description=_description(source, session, is_dated=start is not None),
            identifier=str(
                uuid.uuid5(
                    uuid.NAMESPACE_URL,
                    "/".join([session.text("source_hash"), session.name, source.model,
                              source.version]),
                )
            ),
            session_id=re.sub(r"[^\w.-]+", "-", session.name),
            session_start_time=start or datetime(1970, 1, 1, tzinfo=UTC),
            source_script=json.dumps(source.facts()),
            source_script_file_name="kpms_zarr",
        )  # fmt: skip
        file.subject = self._subject(session)
        module = file.create_processing_module("behavior", "keypoints, and syllables of behaviour")
        frames = _Late(self._io.H5DataIO, session)
        poses = self._poses(source, session, frames)
        if poses:
            skeletons = dict.fromkeys(pose.skeleton for pose in poses)
            module.add(self._pose.Skeletons(skeletons=list(skeletons)))
        for pose in poses:
            module.add(pose)
        series = self._series(source, session, frames)
        for one in series:
            module.add(one)
        for table in self._tables(source, session, series[0], poses[-1] if poses else None):
            module.add(table)
        with h5py.File(path, "w") as handle:
            with warnings.catch_warnings():
                # It gets its name when it is whole.
                warnings.filterwarnings("ignore", "The file path provided: None does not end")
                io = self._nwb.NWBHDF5IO(file=handle, mode="w")
            with io:
                io.write(file)
                frames.fill(source, session)

    def _subject(self, session: ExportedSession) -> Any:
        found = {name: text for name, of in _SUBJECT.items() if (text := session.text(*of))}
        return self._nwb.file.Subject(**found) if found else None

    def _poses(self, source: ExportSource, session: ExportedSession, frames: _Late) -> list[Any]:
        """Tracked keypoints, and those of the model."""
        kinds = {}
        if session.index is not None:
            kinds["tracked"] = source.settings.keypoints
        if source.decoder is not None:
            kinds["denoised"] = source.decoder.keypoints
        found = []
        for kind, keypoints in kinds.items():
            bones = [
                (keypoints.index(a), keypoints.index(b))
                for a, b in source.settings.skeleton
                if a in keypoints and b in keypoints
            ]
            skeleton = self._pose.Skeleton(
                name=f"skeleton_{kind}",
                nodes=list(keypoints),
                edges=np.array(bones, np.uint8).reshape(-1, 2) if bones else None,
            )
            n_space = len(source.settings.space)
            confidence = {}
            if kind == "tracked":
                confidence = {
                    "confidence": [frames.column("confidence", i) for i in range(len(keypoints))]
                }
            series = [
                frames.timed(self._pose.PoseEstimationSeries)(
                    name=_object_name(keypoint),
                    description=f"{kind} position of {keypoint}, in {source.units}",
                    data=frames.column(kind, i, n_space),
                    unit=_unit(source),
                    reference_frame=_NO_CORNER,
                    **{name: columns[i] for name, columns in confidence.items()},
                    **({"confidence_definition": "as the tracker gives it"} if confidence else {}),
                )
                for i, keypoint in enumerate(keypoints)
            ]
            what = (
                f"keypoints as the tracker found them ({session.text('source_format')})"
                if kind == "tracked"
                else f"keypoints as the model {source.model} places them"
            )
            found.append(
                self._pose.PoseEstimation(
                    name=f"PoseEstimation_{kind}",
                    pose_estimation_series=series,
                    description=what,
                    source_software="kpms_zarr",
                    source_software_version=source.facts()["source_software_version"],
                    skeleton=skeleton,
                )
            )
        return found

    def _series(self, source: ExportSource, session: ExportedSession, frames: _Late) -> list[Any]:
        """Variables of the labels by frame, the syllable first."""
        units = {
            "syllable": ("n/a", "syllable of the frame; -1 = none", np.int16),
            "certainty": ("n/a", "probability of the syllable of the frame", np.float32),
            "centroid": (_unit(source), "position of the animal", np.float32),
            "heading": ("radians", "direction of the animal about the vertical axis", np.float32),
            "latent": ("n/a", "latent pose of the model", np.float32),
        }
        found = []
        for name, (unit, meaning, dtype) in units.items():
            if not source.has(name):
                continue
            shape = (source.length_of(name),) if name in ("centroid", "latent") else ()
            found.append(
                frames.timed(self._nwb.TimeSeries)(
                    name=name,
                    description=f"{meaning}, by the model {source.model}",
                    data=frames.column(name, None, *shape, dtype=dtype),
                    unit=unit,
                )
            )
        return found

    def _tables(
        self, source: ExportSource, session: ExportedSession, syllable: Any, pose: Any
    ) -> list[Any]:
        """Bouts, and what their labels stand for; nothing for a session without labels."""
        state, start, stop = source.bouts(session)
        if not len(state):
            source.notes.append(f"{session.name}: no frame has a label, no bouts are written")
            return []
        distinct, place = np.unique(state, return_inverse=True)
        texts = [source.names.label(int(one)) for one in distinct]
        column = self._column
        columns = [
            column("start_time", "when the bout begins, in seconds", session.times.of(start)),
            column("stop_time", "when the bout has ended, in seconds", session.times.of(stop)),
            column("label", "number of the syllable, and its name", [texts[i] for i in place]),
        ]
        about = {
            "name": "syllable_bouts",
            "description": f"runs of one syllable of the model {source.model}",
            "columns": columns,
            "id": np.arange(len(state)),
        }
        if self._ethogram is None:
            return [self._nwb.epoch.TimeIntervals(**about)]
        said = self._definitions(source, distinct.tolist())
        catalogue = self._ethogram.Ethogram(
            name="syllables",
            description=f"syllables of the model {source.model} that occur in the session",
            exclusive=True,
            columns=[
                column("behavior", "number of the syllable, and its name", texts),
                column("definition", "what a person says of it", said),
                column("behavior_type", "state: it lasts", ["state"] * len(distinct)),
                column("native_code", "number of the syllable", distinct.astype(np.int32)),
            ],
            id=np.arange(len(distinct)),
        )  # fmt: skip
        facts = source.facts()
        bouts = self._ethogram.EthogramBouts(
            **about,
            labeling_method="automated",
            source_software=f"kpms_zarr {facts['source_software_version']}",
            parameters=json.dumps(facts),
        )
        bouts.ethogram, bouts.source = catalogue, syllable
        if pose is not None:
            bouts.source_pose = pose
        return [catalogue, bouts]

    def _column(self, name: str, description: str, data: Any) -> Any:
        return self._nwb.core.VectorData(name=name, description=description, data=data)

    @staticmethod
    def _definitions(source: ExportSource, states: Sequence[int]) -> list[str]:
        found = (source.names.description(int(one)) for one in states)
        return [text or "found by the model; nobody has described it" for text in found]


class _Late:
    """Datasets that are made empty, and filled in one pass when the file is there."""

    def __init__(self, make: Any, session: ExportedSession) -> None:
        self._make, self._n_frames, self._times = make, session.n_frames, session.times
        self._fps = session.fps
        self._timed: Any = None
        self._columns: dict[tuple[str, int | None], Any] = {}

    def column(self, name: str, place: int | None, *shape: int, dtype: Any = np.float32) -> Any:
        """Dataset (frame, *shape) of a variable, or of one keypoint of it."""
        found = self._make(
            shape=(self._n_frames, *shape), dtype=np.dtype(dtype),
            chunks=(min(self._n_frames, _FRAMES_PER_CHUNK), *shape), compression="gzip",
            compression_opts=1,
        )  # fmt: skip
        self._columns[name, place] = found
        return found

    def timed(self, kind: Any) -> Any:
        """Make series of a class with their times: a rate, or timestamps, which all share."""

        def make(**content: Any) -> Any:
            if not self._times.is_given:
                return kind(rate=self._fps, starting_time=0.0, **content)
            if self._times.steady_rate is not None:
                rate, start = self._times.steady_rate, self._times.first
                return kind(rate=rate, starting_time=start, **content)
            if self._timed is not None:
                return kind(timestamps=self._timed, **content)
            times = self.column("timestamps", None, dtype=np.float64)
            self._timed = kind(timestamps=times, **content)
            return self._timed

        return make

    def fill(self, source: ExportSource, session: ExportedSession) -> None:
        """Write all frames."""
        kinds = {name for name, _ in self._columns}
        for frames in source.blocks(session):
            values: dict[str, np.ndarray] = {}
            if "tracked" in kinds and (tracked := source.tracked(session, frames)):
                values["tracked"], values["confidence"] = tracked
            if "denoised" in kinds:
                values["denoised"] = source.denoised(session, frames)
            if "timestamps" in kinds:
                values["timestamps"] = session.times.at(frames.start, frames.stop)
            for name in kinds - {"tracked", "confidence", "denoised", "timestamps"}:
                values[name] = source.read(name, session, frames)
            for (name, place), column in self._columns.items():
                part = values[name] if place is None else values[name][:, place]
                column.dataset[frames] = part


def _unit(source: ExportSource) -> str:
    """Unit of positions as NWB calls it; ``n.a.`` = not known."""
    return next((name for name, said in _UNITS.items() if source.units in said), "n.a.")


def _object_name(keypoint: str) -> str:
    """Name of a keypoint as an object of NWB may be called."""
    return re.sub(r"[/:]", "_", keypoint)


def _description(source: ExportSource, session: ExportedSession, *, is_dated: bool) -> str:
    first, step = session.text("first_frame") or "0", session.text("frame_step") or "1"
    parts = [f"session {session.name}"]
    if group := session.text("group"):
        parts.append(f"group {group}")
    if video := session.text("video"):
        name = video.replace("\\", "/").rpartition("/")[2]
        parts.append(f"frame t of it is frame {first} + {step} * t of the video {name}")
    if not is_dated:
        parts.append("its date and time are not known, 1970-01-01 stands for them")
    return "; ".join(parts)


def _start_time(
    source: ExportSource, session: ExportedSession, given: str | None
) -> datetime | None:
    text = given or session.text(*_START_TIMES)
    if not text:
        source.notes.append(
            f"{session.name}: no date and time known, 1970-01-01 stands for them; give them with "
            "`session_start_time=`, or a column session_start_time of `kpms_zarr.annotate`"
        )
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            expected="a date and time such as 2024-05-31T14:30:00+02:00",
            found=repr(text),
            where="`session_start_time=`" if given else f"session {session.name!r}",
            fix="write it as ISO 8601 has it",
        ) from None
    if found.tzinfo is None:
        source.notes.append(f"{session.name}: {text} has no time zone, taken for UTC")
        return found.replace(tzinfo=UTC)
    return found
