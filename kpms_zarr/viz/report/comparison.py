"""One self-contained HTML page about how far labels agree."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import holoviews as hv
import numpy as np
import xarray as xr

from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.wording import counted
from kpms_zarr.viz.report.cells import Cells
from kpms_zarr.viz.report.filling import embedded, filled
from kpms_zarr.viz.report.writing import check_named_page, write_page
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.style import load
from kpms_zarr.viz.syllables.agreement import calibration, confusion

_MOST_PAIRS = 28
"""Pictures of pairs on a page: those of eight labellings."""


class ComparisonLike(Protocol):
    """Comparison of labellings: what ``kpms_zarr.compare`` returns."""

    @property
    def store(self) -> str:
        """Path or URL; "" for labels of files alone."""
        ...

    @property
    def boundary_tolerance(self) -> int:
        """In frames."""
        ...

    @property
    def models(self) -> xr.Dataset:
        """Figures of each labelling, (model)."""
        ...

    @property
    def pairs(self) -> Sequence[Any]:
        """Agreement of each two."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What was left out."""
        ...


def check_page(out: str | os.PathLike[str]) -> None:
    """Refuse a place for the page, before anything is computed (InputError)."""
    check_named_page(out, "comparison", "agreement")


def comparison_page(comparison: ComparisonLike, *, out: str | os.PathLike[str]) -> int:
    """Write how far labels agree as one HTML page that opens without a network.

    Parameters
    ----------
    comparison : Comparison
        What ``kpms_zarr.compare`` returns.
    out : path
        The page, ``.html``; an older one is replaced in one step.

    Returns
    -------
    int
        Bytes of the page.

    Raises
    ------
    InputError
        For a place that cannot be written.
    """
    check_page(out)
    load()
    shown = comparison.pairs[:_MOST_PAIRS]
    figures: list[Any] = []
    for pair in shown:
        has_certainty = pair.calibration_a.attrs["n_frames"] or pair.calibration_b.attrs["n_frames"]
        for element in (confusion(pair), *([calibration(pair)] if has_certainty else [])):
            figures.append(hv.render(element, backend="bokeh"))
    script, divs = embedded(figures)
    rest = iter(divs)
    entries = [_entry(pair, rest, comparison.boundary_tolerance) for pair in shown]
    names = [str(name) for name in comparison.models["model"].values]
    notes = list(comparison.notes)
    if len(shown) < len(comparison.pairs):
        notes.append(f"the first {len(shown)} of {len(comparison.pairs)} pairs are shown")
    page = filled(
        "comparison.html",
        script,
        names=" and ".join(names) if len(names) == 2 else ", ".join(names),
        store=store_name(comparison.store) if comparison.store else "",
        models=_models(comparison.models),
        notes=notes,
        pairs=entries,
        footer=f"Written by kpms_zarr {package_version()}.",
    )
    return write_page(Path(out), page)


def _entry(pair: Any, divs: Any, tolerance: int) -> dict[str, Any]:
    has_certainty = pair.calibration_a.attrs["n_frames"] or pair.calibration_b.attrs["n_frames"]
    return {
        "a": pair.a,
        "b": pair.b,
        "sentence": _sentence(pair, tolerance),
        "syllables": _syllables(pair),
        "matrix": next(divs),
        "calibration": next(divs) if has_certainty else "",
    }


def _sentence(pair: Any, tolerance: int) -> str:
    ceiling = (
        ""
        if np.isnan(pair.ceiling)
        else f" (the published certainties would let expect {_percent(pair.ceiling)})"
    )
    stable = sum(pair.reading_share_a[words] for words in ("stable", "fairly stable"))
    return (
        f"Over {pair.n_frames:,} frames of {counted(pair.n_sessions, 'session')} that both label: "
        f"adjusted Rand index {pair.adjusted_rand_index:.2f}, normalised mutual information "
        f"{pair.normalized_mutual_information:.2f}, {_percent(pair.matched_share)} of the frames "
        f"with the matched label{ceiling}; {_percent(stable)} of the frames of {pair.a} in "
        f"syllables that are stable or fairly stable in {pair.b}; effective numbers of syllables "
        f"{pair.effective_number_a:.1f} and {pair.effective_number_b:.1f}; changes of label within "
        f"{counted(tolerance, 'frame')} of each other: F1 {_number(pair.boundary_f1)}, by chance "
        f"{_number(pair.boundary_f1_by_chance)}."
    )


def _models(table: xr.Dataset) -> Cells:
    header = (
        "Labels", "Version", "Sessions", "Frames", "Effective number", "In use", "Median bout (ms)",
        "Mean certainty",
    )  # fmt: skip
    rows = [
        (
            str(name),
            str(row["version"].item()) or "file",
            str(int(row["n_sessions"])),
            f"{int(row['n_frames']):,}",
            _number(float(row["effective_number"]), 1),
            str(int(row["n_used"])),
            _number(float(row["median_duration"]), 0),
            _percent(float(row["mean_certainty"])),
        )
        for name in table["model"].values
        for row in [table.sel(model=name)]
    ]
    return Cells(header, rows)


def _syllables(pair: Any) -> Cells:
    table, names = pair.syllables_a, pair.confusion["name_a"].values
    frames = table["n_frames"].values
    used = np.flatnonzero(frames >= USED_FRACTION * frames.sum())
    header = ("Syllable", "Share of frames", "Matched", "Best", "Jaccard index", "Reading")
    rows = [
        (
            f"{table['syllable'].values[i]} {names[i]}".rstrip(),
            _percent(frames[i] / frames.sum()),
            "none" if table["matched"].values[i] < 0 else str(table["matched"].values[i]),
            str(table["best"].values[i]),
            f"{table['jaccard'].values[i]:.2f}",
            str(table["reading"].values[i]),
        )
        for i in used
    ]
    return Cells(header, rows)


def _percent(share: float) -> str:
    return "not known" if np.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float, digits: int = 2) -> str:
    return "none" if np.isnan(value) else f"{value:.{digits}f}"
