"""Facts of a report in words and numbers: what was fitted, on what, and the result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import replicability, settling
from kpms_zarr.store.model.replicability import Replicability
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import counted, listed, sentence
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import store_name

_SCALES = {
    "none": "as they are",
    "dataset": "divided by one factor for all sessions",
    "session": "divided by a factor for each session",
}
_STATISTICS = ("frequency", "n_bouts", "median_duration", "mean_duration")


@dataclass(frozen=True)
class Entry:
    """One row of the table of syllables, as text; ``further`` cells as the table names them."""

    label: str
    color: str
    share: str
    bouts: str
    median: str
    mean: str
    further: tuple[str, ...]


@dataclass(frozen=True)
class SyllableTable:
    """Syllables in use and the rare ones, by falling frequency.

    Attributes
    ----------
    further : tuple of str
        Headers of columns that not every model has.
    """

    sentence: str
    further: tuple[str, ...]
    used: tuple[Entry, ...]
    rare: tuple[Entry, ...]
    rare_sentence: str


@dataclass(frozen=True)
class Facts:
    """Words and numbers of the page; nothing in it is HTML.

    Attributes
    ----------
    store, model : str
        Names, without folders.
    facts : tuple of (str, str)
        Name and value.
    settings : tuple of (str, str)
    table_note : str
        Why there is no table.
    """

    store: str
    model: str
    introduction: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    table: SyllableTable | None
    table_note: str
    snippet: str
    footer: str


def facts(opened: OpenModel) -> Facts:
    """Collect what a report says about one version of a model."""
    name = store_name(opened.store)
    try:
        opened.labels_with(*_STATISTICS)
        table, note = _table(opened), ""
    except reading.MissingData as error:
        table, note = None, why_not(error)
    try:
        parameters = opened.parameters
    except reading.MissingData:
        parameters = xr.Dataset()
    numbers = _numbers(opened, table, parameters)
    return Facts(
        name,
        opened.model,
        _introduction(opened, parameters, numbers),
        tuple(numbers.items()),
        tuple(_flat(opened.provenance.get("settings", {}))),
        table,
        note,
        _snippet(opened),
        f"Written by kpms_zarr {package_version()} from the store {name}, model {opened.model}, "
        f"labels {opened.version}.",
    )


def why_not(error: reading.MissingData) -> str:
    """Reason why a view cannot be drawn, in one line without the path of the store."""
    problem = error.problems[0]
    words = f"Left out: this is {problem.found} {problem.expected}. To have it, {problem.fix}."
    return for_shell(words)


def what_first(error: InputError, store: StoreLike) -> str:
    """Command that must come before a view, in one line without the path of the store."""
    problem = error.problems[0]
    words = f"Left out: it needs {problem.expected}; found {problem.found}. {problem.fix}"
    return for_shell(words.replace(os.fspath(store), store_name(store)))


def _numbers(
    opened: OpenModel, table: SyllableTable | None, parameters: xr.Dataset
) -> dict[str, str]:
    labels, sessions = opened.labels, opened.sessions
    hours = sum(session.n_frames / session.fps for session in sessions) / 3600
    numbers = {
        "sessions": f"{len(sessions):,}",
        "hours of video": f"{hours:,.3g}" if hours < 100 else f"{hours:,.0f}",
        "frames": f"{sum(session.n_frames for session in sessions):,}",
    }
    if table is not None:
        numbers["syllables in use"] = str(len(table.used))
        if opened.replicability.is_known:
            share = opened.replicability.shares().interpreted
            numbers["frames that may be interpreted"] = f"{100 * share:.0f} %"
    if {"duration_count", "duration"} <= set(labels.variables):
        numbers["median duration"] = f"{_number(reading.overall_median(labels))} ms"
    stages = [stage for stage in reading.stages(parameters) if stage.label]
    if "member" in parameters:
        numbers["chains"] = str(parameters.sizes["member"])
    elif stages:
        names = " + ".join(stage.label.removesuffix(" stage") for stage in stages)
        numbers[f"sweeps ({names})"] = " + ".join(f"{stage.n_sweeps:,}" for stage in stages)
        evidence = settling.evidence_by_stage(parameters)
        if evidence:
            numbers["log evidence (nat / frame)"] = listed(
                f"{one:.3f}" for one in evidence.values()
            )
    return numbers


def _introduction(opened: OpenModel, parameters: xr.Dataset, numbers: Mapping[str, str]) -> str:
    store, made = opened.store, opened.provenance
    rates = sorted(set(opened.rates))
    rate = f"{rates[0]:g}" + (f" to {rates[-1]:g}" if len(rates) > 1 else "")
    n_labelled, n_stored = opened.labels.sizes["session"], len(access.sessions(store))
    later = f" of {n_stored}, the others came later" if n_stored > n_labelled else ""
    text = (
        f"Model {opened.model} (labels {opened.version}) gives a syllable to every frame of its "
        f"sessions in {store_name(store)}: {counted(numbers['sessions'], 'session')}{later}, "
        f"{numbers['hours of video']} hours of video "
        f"({numbers['frames']} frames at {rate} frames per second)"
        f"{_keypoints(store, parameters)}. "
    )
    if "syllables in use" in numbers:
        text += (
            f"{counted(numbers['syllables in use'], 'syllable')} hold at least "
            f"{100 * USED_FRACTION:g} % of the frames each"
        )
        median = numbers.get("median duration")
        text += f"; the median bout lasts {median}. " if median else ". "
        text += _replicates(opened.replicability)
    text += _consensus(parameters) or _fitted(parameters, made.get("settings", {}))
    day, by = _date(str(made.get("created", ""))), made.get("created_by")
    return f"{text}Written{f' on {day}' if day else ''} by {by or 'an unknown program'}."


def _keypoints(store: StoreLike, parameters: xr.Dataset) -> str:
    if "keypoint" not in parameters:
        return ""
    names = [str(value) for value in parameters["keypoint"].values]
    n_stored = len(read_settings(store).keypoints)
    of = f" of {n_stored}" if n_stored > len(names) else ""
    space = f" in {parameters.sizes['space']} dimensions" if "space" in parameters.sizes else ""
    return f", {len(names)}{of} keypoints{space} ({', '.join(names)})"


def _replicates(found: Replicability) -> str:
    """A sentence on which share of the frames may be interpreted."""
    words = (
        replicability.interpreted_in_words(found)
        if found.is_known
        else f"which of them may be interpreted is not known ({_members(found.n_members)})"
    )
    return f"{sentence(words)} "


def _members(n_members: int) -> str:
    return "one chain was fitted" if n_members == 1 else f"a consensus of {n_members}"


def _consensus(parameters: xr.Dataset) -> str:
    """A sentence on the models that a model was made of; "" for a fit."""
    if "member" not in parameters:
        return ""
    names = [str(name) for name in parameters["member"].values]
    return (
        f"It is what {len(names)} models agree on ({listed(names, 8)}); pose, heading and position "
        f"were sampled given these labels, in {parameters.sizes.get('sweep', 0)} sweeps. "
    )


def _fitted(parameters: xr.Dataset, settings: Mapping[str, Any]) -> str:
    """A sentence on the stages of the fit: sweeps, and kappa at the end of each."""
    stages = [stage for stage in reading.stages(parameters) if stage.label]
    parts = []
    for stage in stages:
        text = f"{counted(f'{stage.n_sweeps:,}', 'sweep')} of the {stage.label}"
        if "trace_kappa" in parameters:
            kappa = float(parameters["trace_kappa"][stage.stop - 1])
            text += f" (kappa {_rounded(kappa)} at its end)"
        parts.append(text)
    if not parts:
        return ""
    said = f"It was fitted in {', then '.join(parts)}. "
    for words in settling.words_of(parameters.attrs):
        said += f"{sentence(words)} "
    if any(stage.name == "full" for stage in stages):
        said += _full_stage(settings, parameters.attrs)
    return said


def _full_stage(settings: Mapping[str, Any], found_in_data: Mapping[str, Any]) -> str:
    """A sentence on what the full stage assumes; what the settings do not tell is left out."""
    found = []
    if "noise_dof" in settings:
        found.append(f"tracking noise with {settings['noise_dof']} degrees of freedom")
    kept = found_in_data
    if kept.get("noise_source"):
        found.append(
            f"a noise level that goes by confidence as calibrated from {kept['noise_source']} "
            f"(slope {kept['noise_slope']:.3g}, intercept {kept['noise_intercept']:.3g})"
        )
    elif {"noise_slope", "noise_intercept"} <= settings.keys():
        found.append(
            f"a noise level that falls with confidence (slope {settings['noise_slope']}, "
            f"intercept {settings['noise_intercept']})"
        )
    if "noise_variance" in settings:
        drawn = {
            "shared": "one noise variance for all keypoints, drawn in every sweep",
            "keypoint": "a noise variance of each keypoint, drawn in every sweep",
        }
        fixed = f"a noise variance of {settings['noise_variance']}"
        found.append(drawn.get(str(settings.get("sample_noise_variance")), fixed))
    if "centroid_step_variance" in settings:
        step = settings["centroid_step_variance"]
        if step is None and "centroid_step_variance" in found_in_data:
            step = f"{_rounded(float(found_in_data['centroid_step_variance']))} (from the data)"
        step = "from the data" if step is None else f"of {step}"
        found.append(f"a centroid step variance {step}")
    scale = _SCALES.get(str(settings.get("scale")))
    if scale is not None:
        found.append(f"positions {scale}")
    return f"The full stage took {', '.join(found)}. " if found else ""


def _table(opened: OpenModel) -> SyllableTable:
    labels, called, found = opened.labels, opened.names, opened.replicability
    frequency = np.nan_to_num(labels["frequency"].values)
    used = reading.used_states(labels)
    order = np.argsort(-frequency, kind="stable")
    rare = [state for state in order if 0 < frequency[state] < USED_FRACTION]
    columns = [labels[name].values for name in _STATISTICS]
    entries = {
        int(state): Entry(
            called.label(int(state)),
            syllable_color(int(state)),
            f"{100 * columns[0][state]:.1f} %",
            f"{int(columns[1][state]):,}",
            _number(columns[2][state]),
            _number(columns[3][state]),
            _further(found, int(state)),
        )
        for state in (*used, *rare)
    }
    held = 100 * float(frequency[rare].sum())
    return SyllableTable(
        "The syllables in use, the most frequent first; a bout is an unbroken run of frames with "
        "one syllable, and each syllable has the same colour everywhere on this page.",
        (
            *(["Replicability"] if found.is_known else []),
            *(["Family"] if found.has_families else []),
        ),
        tuple(entries[int(state)] for state in used),
        tuple(entries[int(state)] for state in rare),
        f"{counted(str(len(rare)), 'rarer syllable')}, {held:.2g} % of the frames together",
    )


def _further(found: Replicability, state: int) -> tuple[str, ...]:
    index, family = float(found.between_chains[state]), int(found.family[state])
    cells = []
    if found.is_known:
        cells.append("–" if np.isnan(index) else f"{index:.2f}, {replicability.reading(index)}")
    if found.has_families:
        cells.append(str(family) if family >= 0 else "–")
    return tuple(cells)


def _snippet(opened: OpenModel) -> str:
    session, name = opened.sessions[0].name, store_name(opened.store)
    group = f"models/{opened.model}/labels/{opened.version}"
    return (
        "import xarray as xr\n"
        f"labels = xr.open_zarr({name!r}, group={group!r}, consolidated=False)\n"
        f"labels.syllable.sel(session={session!r})[: int(labels.n_frames.sel(session={session!r}))]"
    )


def _flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (dotted name, text); folders are cut off what looks like a path."""
    for name, value in settings.items() if isinstance(settings, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{name}", ", ".join(_without_folders(item) for item in value)
        else:
            yield f"{prefix}{name}", _without_folders(value)


def _without_folders(value: Any) -> str:
    text = str(value)
    if "://" in text or PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute():
        return store_name(text)
    return text


def _number(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "–"


def _rounded(value: float) -> str:
    """Format with three significant digits, without powers of ten."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _date(iso: str) -> str:
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return ""
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()
