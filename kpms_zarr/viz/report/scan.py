"""One self-contained HTML page about what a scan of settings has found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np

from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.wording import counted
from kpms_zarr.viz.fit.scan import PANELS, ScanLike, is_shown, panels_of, scan_panel
from kpms_zarr.viz.report.filling import embedded, filled
from kpms_zarr.viz.report.writing import check_named_page, write_page
from kpms_zarr.viz.shared.reading import store_name
from kpms_zarr.viz.shared.style import load

_NAMES = {
    "target_duration": "target durations",
    "kappa": "kappa",
    "latent_dim": "latent dims",
    "lags": "lags",
    "innovation_scale": "the innovation scale",
    "innovation_dof": "the innovation degrees of freedom",
}
_COLUMNS = {
    "Median syllable (ms)": ("median_duration", 0),
    "In use": ("n_used", 1),
    "Effective": ("effective_number", 1),
    "Held out": ("held_out_log_likelihood", 3),
    "EML": ("expected_marginal_likelihood", 3),
    "Evidence": ("log_evidence", 3),
    "ARI": ("adjusted_rand_index", 2),
}


def check_page(out: str | os.PathLike[str]) -> None:
    """Refuse a place for the page, before anything is computed (InputError)."""
    check_named_page(out, "scan", "scan")


def scan_page(scan: ScanLike, *, out: str | os.PathLike[str]) -> int:
    """Write what a scan has found as one HTML page that opens without a network.

    Parameters
    ----------
    scan : Scan
        What ``kpms_zarr.scan`` returns.
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
    names = panels_of(scan)
    figures = [hv.render(scan_panel(scan, name), backend="bokeh") for name in names]
    script, divs = embedded(figures)
    panels = [
        {"about": PANELS[name].about, "title": PANELS[name].title, "plot": div}
        for name, div in zip(names, divs, strict=True)
    ]
    header, rows = _table(scan)
    page = filled(
        "scan.html",
        script,
        title=" and ".join(_NAMES[axis] for axis in scan.axes),
        store=store_name(scan.store),
        name=scan.name,
        about=_about(scan),
        recommendation=[for_shell(text) for text in scan.recommendation],
        notes=[for_shell(note) for note in scan.notes],
        panels=panels,
        header=header,
        rows=rows,
        footer=f"Written by kpms_zarr {package_version()}.",
    )
    return write_page(Path(out), page)


def _about(scan: ScanLike) -> str:
    sizes = scan.table.sizes
    stage = {"ar": "AR", "full": "full"}.get(str(scan.table.attrs["stage"]), "AR, then full")
    held_out = "no session held out"
    if "held_out" in sizes:
        held_out = (
            f"{counted(sizes['held_out'], 'session')} held out "
            f"({counted(scan.n_held_out_frames, 'frame')})"
        )
    return (
        f"{counted(sizes['point'], 'point')} with {counted(sizes['chain'], 'chain')} each (stage: "
        f"{stage}), on {counted(scan.n_frames, 'frame')} of "
        f"{counted(sizes['session'], 'session')}; {held_out}."
    )


def _table(scan: ScanLike) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of all figures."""
    table = scan.table
    shown = {
        title: (table[name].values.astype(float), digits)
        for title, (name, digits) in _COLUMNS.items()
        if is_shown(scan, name)
    }
    rows = []
    for point, label in enumerate(table["label"].values):
        cells = [_cell(values[point], digits) for values, digits in shown.values()]
        rows.append([str(label), *cells, _kappa(table["final_kappa"].values[point])])
    return ["Point", *shown, "Kappa"], rows


def _cell(values: np.ndarray, digits: int) -> str:
    """Mean of the chains that there are; of likelihoods, three digits, with its standard error."""
    values = values[np.isfinite(values)]
    if not values.size:
        return "none"
    text = f"{values.mean():.{digits}f}"
    if digits == 3 and values.size > 1:
        text += f" ± {values.std(ddof=1) / np.sqrt(values.size):.3f}"
    return text


def _kappa(values: np.ndarray) -> Any:
    values = values[np.isfinite(values)]
    return f"{np.exp(np.log(values).mean()):.2g}" if values.size else "none"
