"""Models and their label versions: written once, made current by one small write, never changed."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout, regions, schema
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.provenance import provenance, provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.wording import call

CHAIN_OF = "chain_of"
"""Attribute of a model that is one chain of an ensemble: the name of that."""
_STEP = "is_step"
"""Attribute of a label version that was a step on the way to another one."""


@dataclass(frozen=True)
class ModelInfo:
    """A published model.

    Attributes
    ----------
    name : str
    current : str
        Current label version, such as ``"v1"``.
    versions : tuple of str
        Label versions, without those that were steps on the way to others.
    n_sessions : int
        Sessions with labels in the current one.
    ensemble : str
        Model that it was fitted for as one chain of several; "" = none.
    """

    name: str
    current: str
    versions: tuple[str, ...]
    n_sessions: int
    ensemble: str = ""


def list_models(store: StoreLike | zarr.Group) -> tuple[ModelInfo, ...]:
    """Models with at least one published label version, by name; chains of ensembles come last."""
    root = store if isinstance(store, zarr.Group) else access.open_group(store)
    group = access.subgroup(root, layout.MODELS)
    if group is None:
        return ()
    found = []
    for name, of_model in access.groups_below(group):
        current = current_version(root, name)
        if current is not None:
            labels = access.subgroup(root, f"{layout.model_path(name)}/labels")
            assert labels is not None
            n_sessions = int(labels[f"{current}/n_frames"].shape[0])  # type: ignore[union-attr]
            ensemble = str(of_model.attrs.get(CHAIN_OF, ""))
            versions = listed_versions(labels, current)
            found.append(ModelInfo(name, current, versions, n_sessions, ensemble))
    return tuple(sorted(found, key=lambda model: (bool(model.ensemble), model.name)))


def finished_versions(group: zarr.Group) -> tuple[str, ...]:
    """Finished versions below a group, oldest first; an interrupted one has no provenance yet."""
    names: list[str] = []
    while True:  # not listed: Zarr would warn of what an interrupted one left
        version = access.subgroup(group, f"v{len(names) + 1}")
        if version is None or "provenance" not in version.attrs:
            return tuple(names)
        names.append(f"v{len(names) + 1}")


def listed_versions(labels: zarr.Group, current: str) -> tuple[str, ...]:
    """Finished versions of labels, oldest first, without steps on the way to others.

    A step is listed while somebody has made it the current version.
    """
    every = finished_versions(labels)
    return tuple(v for v in every if v == current or not labels[v].attrs.get(_STEP))


def current_version(root: zarr.Group, model: str) -> str | None:
    """The current label version of a model; None when nothing is published."""
    labels = access.subgroup(root, f"{layout.model_path(model)}/labels")
    current = None if labels is None else labels.attrs.get("current")
    return str(current) if current else None


def require_model(store: StoreLike, model: str) -> str:
    """The current version of a model that must exist.

    Raises
    ------
    InputError
        With the names of the models that there are.
    """
    root = access.open_group(store)
    current = current_version(root, model)
    if current is None:
        names = ", ".join(info.name for info in list_models(root))
        raise InputError(
            expected=f"a fitted model named {model!r}",
            found=f"the models {names}" if names else "no fitted model",
            where=str(store),
            fix=f"fit it with: {call('fit', store, model=model)}",
        )
    return current


def open_labels(store: StoreLike, model: str, version: str | None = None) -> xr.Dataset:
    """Labels of a model, lazily: ``syllable`` (session, frame) and more (see ``schema.LABELS``).

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Such as ``"v1"`` (default: the current one).

    Raises
    ------
    InputError
        When there is no such model or version.
    """
    found = access.dataset(store, labels_path(store, model, version))
    return found.assign_coords(fps=("session", _rates(store, found), found["fps"].attrs))


def _rates(store: StoreLike, labels: xr.Dataset) -> np.ndarray:
    columns = (labels[name].values.tolist() for name in ("session", "n_frames", "fps"))
    rows = [
        Session(str(name), -1, int(n), float(fps)) for name, n, fps in zip(*columns, strict=True)
    ]
    return np.array([one.fps for one in at_present_rates(store, rows)])


def at_present_rates(
    store: StoreLike | zarr.Group, labelled: Sequence[Session]
) -> tuple[Session, ...]:
    """Sessions of labels with the frame rates that the store has of them now.

    Somebody may have said otherwise since the labels were published (``annotate``). What has left
    the store, or is another recording, judged by its length, keeps its own.
    """
    now = {(one.name, one.n_frames): one.fps for one in access.sessions(store)}
    return tuple(replace(one, fps=now.get((one.name, one.n_frames), one.fps)) for one in labelled)


def labelled_sessions(root: zarr.Group, model: str, version: str) -> tuple[str, ...]:
    """Names of the sessions that a version labels."""
    names = root[f"{layout.model_path(model)}/labels/{version}/session"]
    return tuple(map(str, np.asarray(names[:])))  # type: ignore[index]


def labels_path(store: StoreLike, model: str, version: str | None = None) -> str:
    """Group path of a published label version (default: the current one), checked.

    Raises
    ------
    InputError
        When there is no such model or version.
    """
    current = require_model(store, model)
    version = version or current
    labels = access.subgroup(access.open_group(store), f"{layout.model_path(model)}/labels")
    versions = finished_versions(labels) if labels is not None else ()
    if version not in versions:
        raise InputError(
            expected=f"one of the label versions {', '.join(versions)}",
            found=repr(version),
            where=f"{store}, model {model!r}",
            fix=f"leave the version out to get the current one, {current}",
        )
    return f"{layout.model_path(model)}/labels/{version}"


def stage_of(store: StoreLike, model: str) -> str:
    """The stage that the fit of a model ended with: ``"ar"`` or ``"full"``.

    Raises
    ------
    InputError
        When there is no such model, or it has labels only.
    """
    settings = provenance_of(require_parameters(store, model).attrs)["settings"]
    return "ar" if settings.get("stage", "ar") == "ar" else "full"


def open_parameters(store: StoreLike, model: str, version: str | None = None) -> xr.Dataset:
    """Parameters and traces behind the labels of a model (see ``schema.PARAMETERS``)."""
    labels = open_labels(store, model, version)
    path = f"{layout.model_path(model)}/parameters/{labels.attrs['parameters']}"
    return access.dataset(store, path)


def has_parameters(store: StoreLike, model: str) -> bool:
    """Whether a published model has parameters, not labels alone."""
    try:
        open_parameters(store, model)
    except (KeyError, FileNotFoundError):
        return False
    return True


def require_parameters(store: StoreLike, model: str, version: str | None = None) -> xr.Dataset:
    """Parameters as :func:`open_parameters` opens them.

    Raises
    ------
    InputError
        When there is no such model, or it has labels only.
    """
    try:
        return open_parameters(store, model, version)
    except (KeyError, FileNotFoundError) as error:
        raise InputError(
            expected="a model with parameters",
            found="one that has labels only, as those that were imported do",
            where=f"{os.fspath(store)}, model {model!r}",
            fix="name a model that was fitted by this package",
        ) from error


class LabelWriter:
    """Writes one new label version of a model and makes it current.

    Parameters
    ----------
    root : zarr.Group
        The store, writable.
    model : str
    sessions : sequence of Session
        Sessions in the version, in the order of its session dimension.
    settings : StudySettings
        Restricted to the keypoints of the model.
    names : tuple of str
        Per-frame variables to be written.
    n_latent : int
        Length of the latent dimension.
    parameters_version : str
        Of the parameters behind the labels (default: the version of the labels).
    scale : sequence of float, optional
        Units of position per unit of the model, one for each of ``sessions`` (default: 1).
    """

    def __init__(
        self,
        root: zarr.Group,
        model: str,
        *,
        sessions: tuple[Session, ...],
        settings: StudySettings,
        names: tuple[str, ...] = ("syllable",),
        n_latent: int = 0,
        parameters_version: str = "",
        scale: Sequence[float] | None = None,
    ) -> None:
        factors = np.ones(len(sessions)) if scale is None else np.asarray(scale, np.float64)
        if factors.shape != (len(sessions),) or not (np.isfinite(factors) & (factors > 0)).all():
            raise ValueError(f"scale: expected {len(sessions)} positive numbers, found {scale}")
        base = layout.model_path(model)
        self._root, self._base = root, base
        self._labels = make_group(root, f"{base}/labels")
        self.version = f"v{1 + len(finished_versions(self._labels))}"
        self._group = self._labels.create_group(self.version, overwrite=True)
        self._parameters_version = parameters_version or self.version
        sizes = {
            "session": len(sessions),
            "frame": max(session.n_frames for session in sessions),
            "keypoint": len(settings.keypoints),
            "space": len(settings.space),
            "latent_dim": n_latent,
        }
        values = {
            **access.columns_of(sessions),
            "space": np.asarray(settings.space, dtype=object),
            "scale": factors,
        }
        if "noise_scale" in names:
            values["keypoint"] = np.asarray(settings.keypoints, dtype=object)
        layout.create_arrays(self._group, "labels", sizes, (*values, *names))
        for name, column in values.items():
            self._group[name][...] = column  # type: ignore[index]
        self.sessions = sessions
        self.scale = factors
        self._n_frames = [s.n_frames for s in sessions]

    @classmethod
    def attached(cls, root: zarr.Group, model: str, version: str) -> LabelWriter:
        """Writer of rows of a version that another process has begun, and will publish."""
        found = cls.__new__(cls)
        found._root, found._base = root, layout.model_path(model)
        found.version, found._parameters_version = version, ""
        # From the root: what is consolidated above it knows of published versions alone.
        group: Any = root[f"{found._base}/labels/{version}"]
        found._group = group
        columns = zip(group["session"][:], group["n_frames"][:], group["fps"][:], strict=True)
        found.sessions = tuple(
            Session(str(name), row, int(n_frames), float(fps))
            for row, (name, n_frames, fps) in enumerate(columns)
        )
        found.scale = np.asarray(group["scale"][:], np.float64)
        found._n_frames = [session.n_frames for session in found.sessions]
        return found

    @property
    def names(self) -> tuple[str, ...]:
        """Per-frame variables of the version."""
        return tuple(name for name in self._group if name in _PER_FRAME)

    def discard(self) -> None:
        """Remove what was written, of a version that will not be published."""
        del self._labels[self.version]

    @property
    def block_frames(self) -> int:
        """Frames in a block that :meth:`write` accepts."""
        return int(max(self._group[n].chunks[1] for n in self._group if n in _PER_FRAME))  # type: ignore[union-attr]

    def write(self, block: Block, values: Mapping[str, np.ndarray]) -> None:
        """Write per-frame variables of one block (block.session = row of this version)."""
        for name, array in values.items():
            regions.write(
                self._group[name],  # type: ignore[arg-type]
                block,
                array,
                n_frames=self._n_frames[block.session],
            )

    def read(self, name: str, row: int, start: int, stop: int) -> np.ndarray:
        """Some frames of what was written."""
        return regions.read(self._group[name], Block(row, start, stop))  # type: ignore[arg-type]

    def publish(
        self,
        action: str,
        settings: Mapping[str, Any],
        statistics: Mapping[str, Any] | None = None,
        *,
        is_current: bool = True,
    ) -> str:
        """Finish the version, and make it current; from now on it never changes.

        Parameters
        ----------
        action : str
        settings : mapping
            Provenance.
        statistics : mapping, optional
            Variables of the version that have no frame dim (``frequency``, ``n_bouts``, ...);
            scalars become attributes.
        is_current : bool
            False: it is a step on the way to another version, and not listed; the current one stays
            so.
        """
        if statistics:
            arrays = {k: v for k, v in statistics.items() if np.ndim(v)}
            scalars = {k: float(v) for k, v in statistics.items() if not np.ndim(v)}
            layout.write_values(self._group, "labels", arrays)
            attributes.write(self._group, scalars)
        told = {"parameters": self._parameters_version, _STEP: None if is_current else True}
        attributes.write(self._group, {**told, **provenance(action, settings)})
        if is_current:
            attributes.write(self._labels, {"current": self.version})
        consolidate(self._root, [self._base])
        return self.version


def copy_labels(
    root: zarr.Group,
    model: str,
    version: str,
    writer: LabelWriter,
    names: Collection[str],
    *,
    without: Collection[str],
) -> None:
    """Copy what an older version holds by frame into a new one, block by block.

    Parameters
    ----------
    root : zarr.Group
    model, version : str
        Of the older version.
    writer : LabelWriter
        Of the new one; sessions that the older one lacks are left alone.
    names : collection of str
        Per-frame variables; those that the older one lacks are left out.
    without : collection of str
        Sessions that are left alone.
    """
    old = root[f"{layout.model_path(model)}/labels/{version}"]
    rows = {str(name): row for row, name in enumerate(np.asarray(old["session"][:]))}  # type: ignore[index]
    names = [name for name in names if name in old]  # type: ignore[operator]
    for row, session in enumerate(writer.sessions):
        if session.name in without or session.name not in rows:
            continue
        for start in range(0, session.n_frames, writer.block_frames):
            stop = min(start + writer.block_frames, session.n_frames)
            source = Block(rows[session.name], start, stop)
            found = {name: regions.read(old[name], source) for name in names}  # type: ignore[index, arg-type]
            writer.write(Block(row, start, stop), found)


def finished_version(root: zarr.Group, model: str, fit_id: str) -> str | None:
    """The version that a fit has written to its end, made current; None when there is none.

    ``fit_id``: attribute of the parameters that the fit wrote.
    """
    labels = access.subgroup(root, f"{layout.model_path(model)}/labels")
    for version in finished_versions(labels)[::-1] if labels is not None and fit_id else ():
        path = f"{layout.model_path(model)}/parameters/{version}"
        parameters = access.subgroup(root, path)
        if parameters is None or parameters.attrs.get("fit_id") != fit_id:
            continue
        # Labels of that number may be those of somebody who published meanwhile.
        if labels[version].attrs.get("parameters") != version:  # type: ignore[index]
            continue
        current = current_version(root, model)
        if current is None or int(current[1:]) < int(version[1:]):
            attributes.write(labels, {"current": version})  # type: ignore[arg-type]
        return version
    return None


def make_group(root: zarr.Group, path: str, verb: str = "fit") -> zarr.Group:
    """Make a group where it is missing, every level with the provenance of a verb."""
    group = root
    for name in path.split("/"):
        below = access.subgroup(group, name)
        group = below if below is not None else group.create_group(name, overwrite=True)
        if "provenance" not in group.attrs:
            attributes.write(group, provenance(verb))
    return group


_PER_FRAME = {var.name for var in schema.LABELS if var.dims[:2] == ("session", "frame")}


def write_parameters(
    root: zarr.Group,
    model: str,
    version: str,
    values: Mapping[str, Any],
    settings: Mapping[str, Any],
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write the parameters and traces of a version, before its labels are published.

    ``attrs`` are what the fit settled that is not a setting.
    """
    above = make_group(root, f"{layout.model_path(model)}/parameters")
    group = above.create_group(version, overwrite=True)
    layout.write_values(group, "parameters", values)
    attributes.write(group, {**(attrs or {}), **provenance("fit", settings)})
