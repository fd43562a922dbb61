"""Names and descriptions of syllables: every change is a new version, the old ones stay."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr

from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import consolidate, update_attributes
from kpms_zarr.store.core.locking import names_lock
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.writable import writing
from kpms_zarr.store.errors import InputError, Problem
from kpms_zarr.store.model import models
from kpms_zarr.store.model.merges import MergeRecord
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.wording import call

MOST_LETTERS = {"name": 60, "description": 2000}
"""Of a name and of a description."""

_BETWEEN = " + "
"""Between the names of syllables that became one."""

_REFUSED = {"Cc", "Cs", "Zl", "Zp"}
_TURNS = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of the text around them."""


@dataclass(frozen=True)
class SyllableNames(ShownAsTable):
    """Names that people gave to the syllables of a model.

    Attributes
    ----------
    model : str
    version : str
        Of the names, such as ``"v3"``; "" where nothing was named yet.
    parameters : str
        Version of the parameters that number the syllables.
    names, descriptions : tuple of str
        By syllable; "" = none.
    """

    model: str
    version: str = ""
    parameters: str = ""
    names: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()

    def custom_name(self, syllable: int) -> str:
        """Name that a person gave; "" without."""
        return self.names[syllable] if 0 <= syllable < len(self.names) else ""

    def name(self, syllable: int) -> str:
        """Name of a syllable; its number where nobody named it, "none" for -1."""
        return "none" if syllable < 0 else self.custom_name(syllable) or str(syllable)

    def label(self, syllable: int) -> str:
        """Number and name, such as ``"3 rear"``; the number alone where there is no name."""
        return "none" if syllable < 0 else f"{syllable} {self.custom_name(syllable)}".rstrip()

    def description(self, syllable: int) -> str:
        """Description that a person gave; "" without."""
        known = 0 <= syllable < len(self.descriptions)
        return self.descriptions[syllable] if known else ""

    def joined(self, syllables: Sequence[int]) -> tuple[str, str]:
        """Name and description of syllables that became one, each text once.

        Where all names together are too long for one, it is that of the first that has one.
        """
        names = list(dict.fromkeys(filter(None, map(self.custom_name, syllables))))
        texts = list(dict.fromkeys(filter(None, map(self.description, syllables))))
        name = _BETWEEN.join(names)
        text = "\n".join(texts)
        return (
            name if len(name) <= MOST_LETTERS["name"] else names[0],
            text if len(text) <= MOST_LETTERS["description"] else texts[0],
        )


def read_names(store: StoreLike, model: str, version: str | None = None) -> SyllableNames:
    """Names of the syllables of a model.

    Names belong to a version of the parameters: labels that ``apply`` added have those of the fit,
    while another fit numbers its syllables anew and starts without names. Merged syllables have
    the names of those that they are of, until somebody names them.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).

    Returns
    -------
    SyllableNames
        Without any name where nobody gave one.

    Raises
    ------
    InputError
        When there is no such model or version.
    """
    labels = models.labels_path(store, model, version)
    root = access.open_group(store)
    parameters = _parameters_of(root, labels)
    return _read(root, model, parameters)


def syllable_names(store: StoreLike, model: str, *, version: str | None = None) -> xr.Dataset:
    """Names and descriptions of the syllables of a model as a table.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).

    Returns
    -------
    xarray.Dataset
        ``name`` and ``description`` by ``state``, "" = none; empty where nobody gave a name.
        Attributes ``model``, ``version`` (of the names) and ``parameters`` (whose syllables they
        name).

    Raises
    ------
    InputError
        When there is no such model or version.
    """
    found = read_names(store, model, version)
    columns = {"name": found.names, "description": found.descriptions}
    return xr.Dataset(
        {name: ("state", np.asarray(values, dtype=object)) for name, values in columns.items()},
        coords={"state": np.arange(len(found.names))},
        attrs={"model": model, "version": found.version, "parameters": found.parameters},
    )


def name_syllable(
    store: StoreLike,
    model: str,
    syllable: int,
    *,
    name: str | None = None,
    description: str | None = None,
    version: str | None = None,
) -> SyllableNames:
    """Name a syllable, or say something about it; everything else stays as it was.

    Written as a new version of all names, which becomes the current one in one small write; the
    older ones are never modified. Two people may do so at once: the names of both are kept.

    Parameters
    ----------
    store : path or URL
    model : str
    syllable : int
    name : str, optional
        At most 60 letters; "" takes the name away, None leaves it as it is.
    description : str, optional
        At most 2,000 letters, the same.
    version : str, optional
        Of the labels whose syllables are meant (default: the current one).

    Returns
    -------
    SyllableNames
        As they are now.

    Raises
    ------
    InputError
        When there is no such model or syllable, or a text cannot be a name.
    ReadOnlyError
        When the store can be read and not written to.
    """
    change = _checked(store, model, {"name": name, "description": description})
    labels = models.labels_path(store, model, version)
    n_states = _n_states(store, model, version)
    _check_syllable(store, model, syllable, n_states)
    with writing(store):
        root = access.open_group(store, "r+")
        parameters = _parameters_of(root, labels)
        with names_lock(root, store, model):
            before = _read(root, model, parameters)
            after = _changed(before, int(syllable), change, n_states)
            if (after.names, after.descriptions) == (before.names, before.descriptions):
                return before
            settings = {"syllable": int(syllable), **change}
            return _write(root, after, settings)


def name_syllables(store: StoreLike, model: str, texts: Mapping[int, tuple[str, str]]) -> list[str]:
    """Name several syllables at once, as one version of the names.

    Parameters
    ----------
    store : path or URL
    model : str
    texts : mapping of int to (str, str)
        Name and description by syllable; "" = none. Syllables that the model does not have are
        left out.

    Returns
    -------
    list of str
        What was left out.

    Raises
    ------
    InputError
        When there is no such model, or a text cannot be a name.
    """
    labels, n_states = models.labels_path(store, model), _n_states(store, model, None)
    changes = {
        syllable: _checked(store, model, {"name": name, "description": description})
        for syllable, (name, description) in texts.items()
        if 0 <= syllable < n_states
    }
    left = sorted(set(texts) - set(changes))
    with writing(store):
        root = access.open_group(store, "r+")
        parameters = _parameters_of(root, labels)
        with names_lock(root, store, model):
            before = after = _read(root, model, parameters)
            for syllable, change in changes.items():
                after = _changed(after, syllable, change, n_states)
            if (after.names, after.descriptions) != (before.names, before.descriptions):
                _write(root, after, {"syllables": sorted(changes)})
    return [f"{model}: no syllables {', '.join(map(str, left))}, named in vain"] if left else []


def _changed(
    before: SyllableNames, syllable: int, change: Mapping[str, str], n_states: int
) -> SyllableNames:
    columns = {"name": before.names, "description": before.descriptions}
    new = {}
    for column, values in columns.items():
        padded = [*values, *[""] * (n_states - len(values))]
        padded[syllable] = change.get(column, padded[syllable])
        new[column] = tuple(padded)
    if not any((*new["name"], *new["description"])) and not before.version:
        return before
    return SyllableNames(
        before.model, before.version, before.parameters, new["name"], new["description"]
    )


def _path(model: str) -> str:
    return f"{layout.model_path(model)}/names"


def _parameters_of(root: zarr.Group, labels: str) -> str:
    group = access.subgroup(root, labels)
    assert group is not None
    return str(group.attrs.get("parameters", labels.rsplit("/", 1)[1]))


def _read(root: zarr.Group, model: str, parameters: str) -> SyllableNames:
    above = access.subgroup(root, _path(model))
    current = {} if above is None else attributes.read(dict(above.attrs)).get("current", {})
    version = str(current.get(parameters, ""))
    group = access.subgroup(root, f"{_path(model)}/{version}") if version else None
    if group is None:
        return _of_merged(root, model, parameters)
    names, descriptions = (
        tuple(str(text) for text in np.asarray(group[column][:]))  # type: ignore[index]
        for column in ("name", "description")
    )
    return SyllableNames(model, version, parameters, names, descriptions)


def _of_merged(root: zarr.Group, model: str, parameters: str) -> SyllableNames:
    """Names that merged syllables have from those that they are of; none of others."""
    labels = access.subgroup(root, f"{layout.model_path(model)}/labels/{parameters}")
    record = None if labels is None else MergeRecord.of(labels)
    if record is None:
        return SyllableNames(model, "", parameters)
    path = f"{layout.model_path(model)}/labels/{record.from_version}"
    before = _read(root, model, _parameters_of(root, path))
    if not before.version:
        return SyllableNames(model, "", parameters)
    group: Any = root[path]
    share = np.nan_to_num(np.asarray(group["frequency"][:]))
    order = np.argsort(-share, kind="stable")
    texts = [
        before.joined(order[record.number[order] == one].tolist())
        for one in range(len(record.number))
    ]
    names, descriptions = zip(*texts, strict=True)
    return SyllableNames(model, before.version, parameters, names, descriptions)


def _write(root: zarr.Group, names: SyllableNames, settings: Mapping[str, Any]) -> SyllableNames:
    """Write a version and make it current; the lock is held."""
    path = _path(names.model)
    above = access.subgroup(root, path)
    if above is None:
        above = root.create_group(path, attributes=attributes.stored(provenance("name")))
    version = f"v{1 + len(models.finished_versions(above))}"
    # What a killed process left of this number was never current.
    group = above.create_group(version, overwrite=True)
    columns = {"name": names.names, "description": names.descriptions}
    layout.write_values(group, "names", columns)
    attributes.write(group, {"parameters": names.parameters, **provenance("name", settings)})
    current = attributes.read(dict(above.attrs)).get("current", {})
    update_attributes(root, path, {"current": {**current, names.parameters: version}})
    consolidate(root, [path])
    return SyllableNames(names.model, version, names.parameters, names.names, names.descriptions)


def _n_states(store: StoreLike, model: str, version: str | None) -> int:
    """Syllables that a model can have."""
    labels = models.open_labels(store, model, version)
    if "state" in labels.sizes:
        return int(labels.sizes["state"])
    try:
        return int(models.open_parameters(store, model, version).sizes["state"])
    except (KeyError, FileNotFoundError):
        return 1 + np.iinfo(np.int16).max


def _check_syllable(store: StoreLike, model: str, syllable: int, n_states: int) -> None:
    if not 0 <= syllable < n_states:
        raise InputError(
            expected=f"a syllable from 0 to {n_states - 1}",
            found=str(syllable),
            where=f"{os.fspath(store)}, model {model!r}",
            fix=f"list them with: {call('summary', store, model=model)}",
        )


def _checked(store: StoreLike, model: str, texts: Mapping[str, str | None]) -> dict[str, str]:
    """Texts that are given, without blanks around them, in one Unicode form.

    Raises
    ------
    InputError
        With everything that is wrong with them.
    """
    found, problems = {}, []
    where = f"{os.fspath(store)}, model {model!r}"
    for column, given in texts.items():
        if given is None:
            continue
        text = unicodedata.normalize("NFC", given).strip()
        if column == "description":
            text = text.replace("\r\n", "\n")
        most = MOST_LETTERS[column]
        if len(text) > most:
            problems.append(
                Problem(
                    f"a {column} of at most {most} letters",
                    f"{len(text)} letters",
                    where,
                    "say more in the description" if column == "name" else "say it shorter",
                )
            )
        bad = sorted({char for char in text if _is_refused(char, column)})
        if bad:
            problems.append(
                Problem(
                    f"a {column} of letters that can be printed",
                    f"the characters {', '.join(f'U+{ord(char):04X}' for char in bad[:5])}",
                    where,
                    "leave line breaks, tabs and other control characters out",
                )
            )
        found[column] = text
    if not found:
        problems.append(
            Problem("a name or a description", "neither", where, "give one: name='rear'")
        )
    if problems:
        raise InputError.of(problems)
    return found


def _is_refused(char: str, column: str) -> bool:
    if char == "\n" and column == "description":
        return False
    return unicodedata.category(char) in _REFUSED or char in _TURNS
