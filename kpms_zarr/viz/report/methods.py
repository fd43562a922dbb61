"""A paragraph on methods to paste into a paper, made of what a store says of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.attributes import read
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.store.model.replicability import INTERPRETED, Halves, Replicability, percent
from kpms_zarr.store.model.settling import words_of
from kpms_zarr.store.wording import counted, sentence
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.opened import OpenModel

_REFERENCES = {
    "Dahl et al., 2022": "Dahl DB, Johnson DJ, Müller P (2022). Search algorithms and loss "
    "functions for Bayesian clustering. Journal of Computational and Graphical Statistics 31, "
    "1189–1201.",
    "Fox et al., 2011": "Fox EB, Sudderth EB, Jordan MI, Willsky AS (2011). A sticky HDP-HMM with "
    "application to speaker diarization. Annals of Applied Statistics 5, 1020–1056.",
    "Geweke, 1992": "Geweke J (1992). Evaluating the accuracy of sampling-based approaches to the "
    "calculation of posterior moments. In: Bayesian Statistics 4, 169–193. Oxford University "
    "Press.",
    "Hennig, 2007": "Hennig C (2007). Cluster-wise assessment of cluster stability. Computational "
    "Statistics & Data Analysis 52, 258–271.",
    "Hubert and Arabie, 1985": "Hubert L, Arabie P (1985). Comparing partitions. Journal of "
    "Classification 2, 193–218.",
    "Wade and Ghahramani, 2018": "Wade S, Ghahramani Z (2018). Bayesian cluster analysis: point "
    "estimation and credible balls. Bayesian Analysis 13, 559–626.",
    "Weinreb et al., 2024": "Weinreb C, Pearl JE, Lin S, et al. (2024). Keypoint-MoSeq: parsing "
    "behavior by linking point tracking to pose dynamics. Nature Methods 21, 1329–1339.",
}
"""How a work is cited in the text -> its reference, by name."""
_SCALES = {
    "dataset": "divided by one factor for all sessions",
    "session": "divided by a factor for each session",
}


@dataclass(frozen=True)
class Methods:
    """Paragraphs, and the works that they cite."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]


def methods(opened: OpenModel) -> Methods:
    """Describe how the labels of a model were made, and which of its syllables may be interpreted.

    Only what the store tells is said.
    """
    try:
        parameters = opened.parameters
    except reading.MissingData:
        parameters = xr.Dataset()
    paragraphs = [f"{_data(opened, parameters)} {_model(opened, parameters)}"]
    if "frequency" in opened.labels:
        paragraphs.append(_replicates(opened))
    text = " ".join(paragraphs)
    return Methods(
        tuple(paragraphs), tuple(work for cited, work in _REFERENCES.items() if cited in text)
    )


# ------------------------------------------------------------------ what was put in


def _data(opened: OpenModel, parameters: xr.Dataset) -> str:
    by = opened.provenance.get("created_by") or "kpms_zarr"
    sessions, rates = opened.sessions, sorted(set(opened.rates))
    rate = " to ".join(dict.fromkeys(f"{value:g}" for value in (rates[0], rates[-1])))
    text = (
        f"Syllables of behaviour were found with {by}, which implements keypoint-MoSeq (Weinreb et "
        f"al., 2024). The data were {counted(len(sessions), 'session')} of "
        f"{sum(session.n_frames for session in sessions):,} frames in all, at {rate} frames per "
        "second"
    )
    if "keypoint" not in parameters:
        return f"{text}."
    names = [str(name) for name in parameters["keypoint"].values]
    text += (
        f", with {counted(len(names), 'keypoint')} in {parameters.sizes['space']} dimensions "
        f"({', '.join(names)})."
    )
    return text + _screen(parameters) + _components(opened, parameters)


def _screen(parameters: xr.Dataset) -> str:
    scale = read(parameters.attrs).get("outlier_scale")
    if not isinstance(scale, int | float):
        return ""
    return (
        " Points that the other keypoints of the frame put elsewhere, further off than the median "
        f"plus {scale:g} median absolute deviations, were treated as missing."
    )


def _components(opened: OpenModel, parameters: xr.Dataset) -> str:
    """How the pose was aligned and reduced."""
    if "latent_dim" not in parameters.sizes:
        return ""
    settings, n = opened.provenance.get("settings", {}), parameters.sizes["latent_dim"]
    factor = _SCALES.get(str(settings.get("scale")))
    scaled = f", {factor}" if factor else ""
    turned = " and turned to one heading" if not settings.get("fix_heading") else ""
    held = _held_variance(opened, parameters)
    return (
        f" Positions were centred{turned}{scaled}, and described by their first "
        f"{counted(n, 'principal component')}{held}."
    )


def _held_variance(opened: OpenModel, parameters: xr.Dataset) -> str:
    """Share of the variance in the components of a model, where the PCA is of its keypoints."""
    try:
        pca = access.dataset(opened.store, layout.PCA)
        ratio, names = pca["explained_variance_ratio"].values, pca["keypoint"].values
    except (InputError, KeyError, FileNotFoundError):
        return ""
    n = parameters.sizes["latent_dim"]
    if len(ratio) < n or list(map(str, names)) != list(map(str, parameters["keypoint"].values)):
        return ""
    return f", which hold {100 * ratio[:n].sum():.0f} % of the variance of the aligned pose"


# ------------------------------------------------------------------ the model


def _model(opened: OpenModel, parameters: xr.Dataset) -> str:
    text = (
        "The model is an autoregressive hidden Markov model with a sticky hierarchical Dirichlet "
        "process as the prior of its transitions (Fox et al., 2011)"
    )
    if "member" in parameters:
        return f"{text}. {_consensus(opened, parameters)}"
    settings = provenance_of(parameters.attrs).get("settings", {})
    labels = _labels(opened.labels)
    rest = f"{_chain(settings, parameters)}{_noise(parameters)}{labels}"
    return f"{text}, {_states(settings)}. {rest}"


def _states(settings: Mapping[str, Any]) -> str:
    order, n = settings.get("lags"), settings.get("n_states")
    parts = [f"of order {order}"] if order else []
    parts += [f"with {n} states at most"] if n else []
    return ", ".join(parts) or "with settings that were not stored"


def _chain(settings: Mapping[str, Any], parameters: xr.Dataset) -> str:
    """Sentences on the sweeps and the seed of one chain, and on whether it had settled."""
    sweeps = _sweeps(reading.stages(parameters))
    if not sweeps:
        return ""
    seed = f" (seed {settings['seed']})" if "seed" in settings else ""
    return (
        f"One chain was Gibbs-sampled{seed}: {sweeps}{_stickiness(settings)}.{_settled(parameters)}"
    )


def _sweeps(stages: Iterable[reading.FitStage]) -> str:
    return ", then ".join(
        counted(stage.n_sweeps, "sweep") + (f" of the {stage.label}" if stage.label else "")
        for stage in stages
    )


def _stickiness(settings: Mapping[str, Any]) -> str:
    target, kappa = settings.get("target_duration"), settings.get("kappa")
    merged = settings.get("merge_sweeps")
    words = ""
    if target:
        words += f"; stickiness was adapted to a median bout of {target:g} ms"
    elif kappa:
        words += f"; stickiness kappa was {float(kappa):g}"
    if merged:
        words += (
            f"; states that the evidence of the model took for one were merged in the first "
            f"{merged} sweeps"
        )
    return words


def _settled(parameters: xr.Dataset) -> str:
    """Sentences on whether the chain had settled, by which measure."""
    words = words_of(parameters.attrs)
    if not words:
        return ""
    said = "".join(f" {sentence(text)}" for text in words)
    return (
        f"{said} Joint log density, number of syllables in use and share of changing labels were "
        "compared between two windows of sweeps for that (Geweke, 1992)."
    )


def _noise(parameters: xr.Dataset) -> str:
    """A sentence on a noise prior from the data."""
    kept = parameters.attrs
    if not kept.get("noise_source"):
        return ""
    sign = "+" if kept["noise_intercept"] >= 0 else "-"
    return (
        " The prior scale of the noise of a keypoint goes by the confidence of the tracker: log10 "
        f"of its root = {kept['noise_slope']:.3g} log10(confidence + "
        f"{kept['noise_pseudocount']:g}) {sign} {abs(kept['noise_intercept']):.3g} (bodies 100 "
        "long), "
        f"calibrated from {kept['noise_source']}."
    )


def _labels(labels: xr.Dataset) -> str:
    if "second_certainty" not in labels:
        return ""
    return (
        " The label of a frame is the one that it had most often over the last sweeps, and its "
        "certainty the share of these sweeps."
    )


def _consensus(opened: OpenModel, parameters: xr.Dataset) -> str:
    """Sentences on the chains that a model was made of, and on how."""
    names = [str(name) for name in parameters["member"].values]
    target = provenance_of(parameters.attrs).get("settings", {}).get("target_duration")
    length = f" (chosen for a median bout of {target:.0f} ms)" if target else ""
    certainty = float(
        np.nansum(opened.labels["mean_certainty"] * opened.labels["frequency"])
        if "mean_certainty" in opened.labels
        else np.nan
    )
    mean = "" if np.isnan(certainty) else f" ({certainty:.2f} on average)"
    return (
        f"{_members(opened, names)} States of all chains were taken for one syllable as in the "
        "partition of least expected variation of information (Wade and Ghahramani, 2018; searched "
        "for as by Dahl et al., 2022), each chain with one vote in every frame. Labels are the "
        f"best path through the votes, with one price for every change of label{length}; the "
        f"certainty of a label is its share of the votes{mean}. Pose, heading and position were "
        "then Gibbs-sampled with the full model given these labels, in "
        f"{counted(parameters.sizes.get('sweep', 0), 'sweep')}.{_noise(parameters)}"
    )


def _members(opened: OpenModel, names: Sequence[str]) -> str:
    """A sentence on the chains, as alike as the store says that they are."""
    found = list(_member_settings(opened, names))
    text = f"It was fitted in {len(names)} chains, independently of each other"
    if len(found) < len(names):
        return f"{text}."
    first = found[0][0]
    shared = {key: value for key, value in first.items() if key not in ("seed", "given", "notes")}
    differs = any(
        {key: one.get(key) for key in shared} != shared or one.keys() != first.keys()
        for one, _ in found
    )
    if differs:
        return f"{text}, with different settings."
    seeds = _seeds(opened, [int(one["seed"]) for one, _ in found if "seed" in one])
    seeds = f", that differ in the seed only ({seeds})" if seeds else ""
    sweeps = {_sweeps(stages) for _, stages in found}
    length = f": {sweeps.pop()} each" if len(sweeps) == 1 else ""
    return f"{text}{seeds}, each {_states(first)}{length}{_stickiness(first)}."


def _member_settings(
    opened: OpenModel, names: Iterable[str]
) -> Iterable[tuple[dict[str, Any], tuple[reading.FitStage, ...]]]:
    """Settings and stages of the members that are still in the store."""
    versions = map(str, opened.parameters["member_version"].values)
    for name, version in zip(names, versions, strict=True):
        try:
            found = open_parameters(opened.store, name, version)
        except (InputError, KeyError, FileNotFoundError):
            continue
        yield provenance_of(found.attrs).get("settings", {}), reading.stages(found)


def _seeds(opened: OpenModel, seeds: Sequence[int]) -> str:
    """Seeds of the chains; those of an ensemble are hashes of one seed and their numbers."""
    group = access.subgroup(access.open_group(opened.store), layout.model_path(opened.model))
    request = {} if group is None else read(group.attrs).get("ensemble") or {}
    seed = request.get("config", {}).get("seed")
    if seed is None or len(seeds) != request.get("chains"):
        return _numbers(seeds)
    return f"each made of {seed} and the number of the chain"


def _numbers(values: Sequence[int]) -> str:
    """Numbers in words: ``0 to 7``, ``3, 5 and 9``."""
    ordered = sorted(values)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return _joined(map(str, ordered))


def _joined(texts: Iterable[str]) -> str:
    *most, last = [*texts] or [""]
    return f"{', '.join(most)} and {last}" if most else last


# ------------------------------------------------------------------ what it is worth


def _replicates(opened: OpenModel) -> str:
    found = opened.replicability
    n_used = len(opened.used)
    used = (
        f"In use were {counted(n_used, 'syllable')}, with {100 * USED_FRACTION:g} % of the frames "
        "or more each"
    )
    if not found.is_known:
        why = "one chain was fitted" if found.n_members == 1 else "too few chains were fitted"
        return (
            f"{used}. How far they would be found with another seed was not measured, because "
            f"{why}; no syllable can be said to replicate, and the certainties hold for this chain "
            "alone."
        )
    return f"{used}. {_halves(found)}{_interpreted(opened, found)}{_beyond(opened, found)}"


def _halves(found: Replicability) -> str:
    if not found.chain_halves.is_known:
        return ""
    return (
        "Labels on which two halves of the chains agreed, each half on its own, were compared: "
        f"{_figures(found.chain_halves)} (adjusted Rand index: Hubert and Arabie, 1985). "
    )


def _figures(halves: Halves) -> str:
    parts = [f"adjusted Rand index {halves.rand_index:.2f}"]
    if not np.isnan(halves.matched_share):
        parts.append(f"{percent(halves.matched_share)} of the frames with the matched label")
    if not np.isnan(halves.effective_number):
        number = f"{halves.effective_number:.1f}"
        parts.append(f"an effective number of syllables (exp of the entropy of usage) of {number}")
    return _joined(parts)


def _interpreted(opened: OpenModel, found: Replicability) -> str:
    by_reading, shares = found.grouped(), found.shares()
    kept = [*by_reading["stable"], *by_reading["fairly stable"]]
    text = (
        "By the Jaccard index of each syllable between these halves (Hennig, 2007), "
        f"{_named(opened, kept, 'replicated and')} interpreted (index {INTERPRETED:g} or more; "
        f"{percent(shares.interpreted)} of the frames)"
    )
    if by_reading["doubtful"]:
        doubtful = _named(opened, by_reading["doubtful"], "doubtful")
        text += f"; {doubtful} (0.6 or more; {percent(shares.doubtful)})"
    if by_reading["do not interpret"]:
        rejected = _named(opened, by_reading["do not interpret"], "not interpreted")
        text += f"; {rejected} (below 0.6; {percent(shares.rejected)})"
    return f"{text}. "


def _named(opened: OpenModel, states: Sequence[int], what: str) -> str:
    """``syllables 1, 2 and 5 are doubtful``."""
    if not states:
        return f"none of the syllables {what}"
    names = _joined(map(opened.names.label, sorted(states)))
    verb = "is" if len(states) == 1 else "are"
    noun = "syllable" if len(states) == 1 else "syllables"
    if what == "replicated and":
        return f"{noun} {names} {what} {verb}"
    return f"{noun} {names} {verb} {what}"


def _beyond(opened: OpenModel, found: Replicability) -> str:
    if not found.is_known_between_sessions:
        return (
            "How far the syllables are those of other animals was not measured: halves of the "
            "sessions were not compared."
        )
    grouped = found.grouped(found.lower)
    kept = sorted([*grouped["stable"], *grouped["fairly stable"]])
    figures = f" ({_figures(found.session_halves)})" if found.session_halves.is_known else ""
    share = percent(found.shares(found.lower).interpreted)
    names = _joined(map(opened.names.label, kept))
    what = "none" if not kept else f"{'syllable' if len(kept) == 1 else 'syllables'} {names}"
    return (
        f"Of these, {what} ({share} of the frames) {'were' if len(kept) > 1 else 'was'} found "
        f"again, by the same measure, between ensembles fitted to two halves of the sessions"
        f"{figures}."
    )
