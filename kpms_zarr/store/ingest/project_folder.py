"""Project folders of keypoint-MoSeq: settings, results of its models, groups and names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from kpms_zarr.store.errors import InputError, unreadable
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.study.session_rows import read_sheet
from kpms_zarr.store.study.tables import SessionTable, read_table
from kpms_zarr.store.wording import listed

_CONFIG, _RESULTS, _GROUPS, _NAMES = "config.yml", "results.h5", "index.csv", "syll_info.csv"
_NUMBER = ("syllable", "syllables", "index")
_NAME = ("label", "name", "syllable_label")
_DESCRIPTION = ("short_description", "description")


@dataclass(frozen=True)
class ResultSession:
    """Shapes of the results of one recording.

    Attributes
    ----------
    key : str
        The recording as the file calls it.
    n_frames : int
    n_latent, n_space : int
        0 where the file has no latent pose, or no centroid.
    has_heading : bool
    """

    key: str
    n_frames: int
    n_latent: int
    n_space: int
    has_heading: bool


@dataclass(frozen=True)
class ProjectModel:
    """A model of a project.

    Attributes
    ----------
    name : str
        Of its folder.
    results : Path
        Its ``results.h5``.
    names : Path or None
        Its ``syll_info.csv``.
    """

    name: str
    results: Path
    names: Path | None

    def sessions(self) -> tuple[ResultSession, ...]:
        """What its results hold, of all recordings.

        Raises
        ------
        InputError
            When the file cannot be read, or holds something else.
        """
        with hdf5.opened(self.results) as file:
            found = [_session(group, key) for key, group in _recordings(file)]
        if not found:
            raise InputError(
                expected="a group for each recording, with a dataset syllable",
                found="none",
                where=str(self.results),
                fix="name the folder of a project whose models have results",
            )
        return tuple(found)

    def blocks(self, key: str, block_frames: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Read the results of a recording by blocks.

        Yields
        ------
        start : int
        values : dict of str to ndarray, (frame, ...)
            ``syllable`` and, where they are there, ``latent``, ``centroid`` and ``heading``.
        """
        datasets = {
            "syllable": "syllable", "latent": "latent_state", "centroid": "centroid",
            "heading": "heading",
        }  # fmt: skip
        with hdf5.opened(self.results) as file:
            group = file[key]
            there = {name: group[one] for name, one in datasets.items() if one in group}
            for start in range(0, len(there["syllable"]), block_frames):
                frames = slice(start, start + block_frames)
                yield start, {name: np.asarray(data[frames]) for name, data in there.items()}

    def syllables(self) -> dict[int, tuple[str, str]]:
        """Name and description of the syllables that somebody named, by number."""
        if self.names is None:
            return {}
        sheet = read_sheet(self.names, str(self.names))
        lower = [name.lower() for name in sheet.header]
        number, name, description = (
            next((lower.index(one) for one in choices if one in lower), None)
            for choices in (_NUMBER, _NAME, _DESCRIPTION)
        )
        if number is None or name is None:
            raise InputError(
                expected=f"columns with the number of a syllable ({_NUMBER[0]}) and its name "
                f"({', '.join(_NAME)})",
                found=listed(map(repr, sheet.header)) or "none",
                where=str(self.names),
                fix="name the columns so, or move the file out of the folder",
            )
        found = {}
        for row, cells in sheet.rows:
            try:
                syllable = int(float(cells[number]))
            except ValueError:
                raise InputError(
                    expected="the number of a syllable",
                    found=repr(cells[number]),
                    where=f"{self.names}, row {row}",
                    fix="correct this row",
                ) from None
            text = "" if description is None else cells[description]
            if cells[name] or text:
                found[syllable] = (cells[name], text)
        return found


@dataclass(frozen=True)
class Project:
    """A project folder of keypoint-MoSeq.

    Attributes
    ----------
    path : Path
    config : mapping
        Its ``config.yml``; empty where there is none.
    models : tuple of ProjectModel
    groups : SessionTable or None
        Its ``index.csv``.
    notes : tuple of str
    """

    path: Path
    config: Mapping[str, Any]
    models: tuple[ProjectModel, ...]
    groups: SessionTable | None
    notes: tuple[str, ...] = field(default=())

    def names(self, key: str) -> list[str] | None:
        """A setting that is a list of keypoints; None where it is not there or empty."""
        found = self.config.get(key)
        return [str(one) for one in found] if isinstance(found, list) and found else None

    @property
    def fps(self) -> float | None:
        """Frames per second of the videos; None where the settings do not say."""
        found = self.config.get("fps")
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        return float(found) if is_number and found > 0 else None  # type: ignore[arg-type, operator]

    @property
    def skeleton(self) -> list[tuple[str, str]] | None:
        """Bones between keypoints that are used; None without any."""
        found = self.config.get("skeleton")
        used = self.names("use_bodyparts")
        bones = [
            (str(bone[0]), str(bone[1]))
            for bone in found or ()
            if isinstance(bone, list | tuple) and len(bone) == 2
        ] if isinstance(found, list) else []  # fmt: skip
        return [b for b in bones if used is None or set(b) <= set(used)] or None

    @property
    def video_folder(self) -> Path | None:
        """Folder of the videos, where the settings name one that is there."""
        text = self.config.get("video_dir")
        if not (isinstance(text, str) and text.strip()):
            return None
        return next((p for p in (Path(text), self.path / text) if p.exists()), None)

    @property
    def suffix(self) -> str:
        """What recordings are called in addition to the names of their videos."""
        return str(self.config.get("recording_name_suffix") or "")


def read_project(path: str | os.PathLike[str], models: Sequence[str] | None = None) -> Project:
    """Read the settings of a project, and find its models.

    Parameters
    ----------
    path : path
    models : sequence of str, optional
        Models to take (default: all that have results).

    Raises
    ------
    InputError
        When it is no project, or does not have one of the models.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(
            expected="the folder of a keypoint-MoSeq project",
            found="no such folder",
            where=str(folder),
            fix=f"name the folder in which {_CONFIG} is",
        )
    config = _config(folder / _CONFIG)
    there = {
        one.name: ProjectModel(one.name, one / _RESULTS, _if_there(one / _NAMES))
        for one in sorted(folder.iterdir())
        if (one / _RESULTS).is_file()
    }
    if not there or not config:
        raise InputError(
            expected=f"a project with {_CONFIG}, and {_RESULTS} in the folders of its models",
            found=f"no {_RESULTS}" if config else f"no {_CONFIG}",
            where=str(folder),
            fix=f"name the folder in which {_CONFIG} is; results are written by extract_results",
        )
    unknown = [name for name in models or () if name not in there]
    if unknown:
        raise InputError(
            expected=f"some of the models {listed(there)}",
            found=listed(map(repr, unknown)),
            where=str(folder),
            fix="name folders of the project that have results",
        )
    groups = read_table(folder / _GROUPS) if (folder / _GROUPS).is_file() else None
    chosen = tuple(one for name, one in there.items() if models is None or name in models)
    return Project(folder, config, chosen, groups)


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    yaml: Any = import_module("yaml")  # of dask
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(
            expected="settings in YAML",
            found=f"what is none ({str(error).splitlines()[0]})",
            where=str(path),
            fix="correct the file, or copy it again from the project",
        ) from error
    return dict(found) if isinstance(found, dict) else {}


def _recordings(file: h5py.File) -> Iterator[tuple[str, h5py.Group]]:
    """Groups with a dataset ``syllable``; a name with a ``/`` lies in folders of its own."""
    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and isinstance(item.get("syllable"), h5py.Dataset):
            found.append(name)

    file.visititems(visit)
    for name in found:
        yield name, file[name]


def _session(group: h5py.Group, key: str) -> ResultSession:
    where = f"{group.file.filename}, {key!r}"
    wanted = {"syllable": 1, "latent_state": 2, "centroid": 2, "heading": 1}
    there: dict[str, Any] = {}
    for name, n_dims in wanted.items():
        data = hdf5.internal(group, name)
        if not isinstance(data, h5py.Dataset):
            continue
        hdf5.check_inside(data, where)
        hdf5.check_numbers(data, where)
        if data.ndim != n_dims or len(data) != len(there.get("syllable", data)):
            raise InputError(
                expected=f"{name} with one entry for each frame",
                found=f"an array of shape {data.shape}",
                where=where,
                fix="extract the results again",
            )
        there[name] = data
    shape = {name: there[name].shape[1] for name in ("latent_state", "centroid") if name in there}
    return ResultSession(
        key, len(there["syllable"]), shape.get("latent_state", 0), shape.get("centroid", 0),
        "heading" in there,
    )  # fmt: skip
