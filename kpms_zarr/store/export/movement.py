"""Poses datasets of the package movement as netCDF files, written by slices of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kpms_zarr.store.export.packages import package
from kpms_zarr.store.export.source import ExportedSession, ExportSource

_FRAMES_PER_CHUNK = 16_384
_ONE = "id_0"
"""What movement calls an individual without a name."""


def write_dataset(source: ExportSource, session: ExportedSession, path: Path) -> None:
    """Write a session as a poses dataset.

    Dimensions ``time``, ``space``, ``keypoints``, ``individuals`` (one). ``position``: as tracked,
    NaN = missing; ``confidence``: of the tracker, NaN = not given; ``position_denoised``: of the
    model, where it has parameters, NaN for keypoints that it does not use. Coordinates: ``time`` in
    seconds (timestamps of the session, or frame / fps), and beside it, over ``time``, ``syllable``
    (-1 = none) and, where they are known, ``certainty`` and ``syllable_name``; ``heading`` (rad)
    and ``centroid`` are variables.
    Layout: the documentation of movement, "The movement datasets".
    """
    netcdf = package("h5netcdf", "netCDF", "movement")
    with netcdf.File(path, "w") as file:
        settings = source.settings
        file.dimensions = {
            "time": session.n_frames,
            "space": len(settings.space),
            "keypoints": len(settings.keypoints),
            "individuals": 1,
        }
        columns = {
            "space": settings.space,
            "keypoints": settings.keypoints,
            "individuals": (session.text("individual") or _ONE,),
        }
        for name, texts in columns.items():
            file.create_variable(name, (name,), _text())[:] = np.asarray(texts, dtype=object)
        file.attrs.update(
            {
                **source.facts(),
                "source_file": session.text("source"),
                "ds_type": "poses",
                "fps": session.fps,
                "time_unit": "seconds",
                "session": session.name,
            }
        )
        arrays = _arrays(file, source, session)
        for frames in source.blocks(session):
            for name, values in _values(source, session, frames).items():
                arrays[name][frames] = values


def _text() -> Any:
    import h5py

    return h5py.string_dtype()


def _arrays(file: Any, source: ExportSource, session: ExportedSession) -> dict[str, Any]:
    """Empty variables by name."""
    pose = ("time", "space", "keypoints", "individuals")
    labels = [name for name in ("certainty",) if source.has(name)]
    labels += ["syllable_name"] if any(source.names.names) else []
    layout: dict[str, tuple[tuple[str, ...], Any, str, str]] = {
        "time": (("time",), np.float64, "time of the frame", ""),
        "position": (pose, np.float32, "tracked keypoint position", source.units),
        "confidence": (
            ("time", "keypoints", "individuals"), np.float32, "confidence of the tracker", "",
        ),
        "syllable": (("time",), np.int16, "syllable of the frame; -1 = none", ""),
    }  # fmt: skip
    if "certainty" in labels:
        layout["certainty"] = (("time",), np.float32, "probability of the syllable", "")
    if "syllable_name" in labels:
        layout["syllable_name"] = (("time",), _text(), "name of the syllable; empty = none", "")
    if source.decoder is not None:
        meaning = "keypoint position, denoised by the model"
        layout["position_denoised"] = (pose, np.float32, meaning, source.units)
    if source.has("centroid"):
        layout["centroid"] = (
            ("time", "space", "individuals"), np.float32, "position of the animal", source.units,
        )  # fmt: skip
    if source.has("heading"):
        layout["heading"] = (("time", "individuals"), np.float32, "direction of the animal", "rad")
    found = {}
    for name, (dims, dtype, meaning, units) in layout.items():
        shape = [min(file.dimensions[dim].size, _FRAMES_PER_CHUNK) for dim in dims]
        found[name] = file.create_variable(
            name, dims, dtype, chunks=tuple(shape), compression="gzip", compression_opts=1
        )
        found[name].attrs["long_name"] = meaning
        if units:
            found[name].attrs["units"] = units
        if name not in ("time", "syllable", *labels):
            found[name].attrs["coordinates"] = " ".join(["syllable", *labels])
    return found


def _values(source: ExportSource, session: ExportedSession, frames: slice) -> dict[str, np.ndarray]:
    """Values of some frames by name, in the order of the dimensions of the file."""
    n_frames, settings = frames.stop - frames.start, source.settings
    syllable = source.read("syllable", session, frames)
    found: dict[str, np.ndarray] = {
        "time": session.times.at(frames.start, frames.stop),
        "syllable": syllable,
    }
    empty = np.full((n_frames, len(settings.keypoints), len(settings.space)), np.nan, np.float32)
    position, confidence = source.tracked(session, frames) or (empty, empty[..., 0])
    found["position"] = np.swapaxes(position, 1, 2)[..., None]
    found["confidence"] = confidence[..., None]
    if source.has("certainty"):
        found["certainty"] = source.read("certainty", session, frames)
    if any(source.names.names):
        distinct, place = np.unique(syllable, return_inverse=True)
        texts = [source.names.custom_name(int(one)) for one in distinct]
        found["syllable_name"] = np.asarray(texts, dtype=object)[place]
    if source.decoder is not None:
        all_of_them = empty.copy()
        columns = [settings.keypoints.index(name) for name in source.decoder.keypoints]
        all_of_them[:, columns] = source.denoised(session, frames)
        found["position_denoised"] = np.swapaxes(all_of_them, 1, 2)[..., None]
    if source.has("centroid"):
        found["centroid"] = source.read("centroid", session, frames)[..., None]
    if source.has("heading"):
        found["heading"] = source.read("heading", session, frames)[..., None]
    return found


def check() -> None:
    """Refuse an export that no package here can write (InputError)."""
    package("h5netcdf", "netCDF", "movement")
