"""Choices that hold for all files of an ingest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.ingest.timeline import MaxGap
from kpms_zarr.store.ingest.trimming import Trim
from kpms_zarr.store.parsers.base import FileHeader
from kpms_zarr.store.study.plausibility import Correction
from kpms_zarr.store.study.session_names import Origin, Scheme
from kpms_zarr.store.study.settings import StudySettings, parse_skeleton, settings_from_names
from kpms_zarr.store.study.tables import SessionTable


@dataclass(frozen=True)
class IngestChoices:
    """Choices that hold for all files of an ingest, as they are described there.

    Attributes
    ----------
    rates : SessionTable or float, optional
        Frames of the video per second.
    scheme : Scheme
        Of the names of sessions.
    preferred : sequence of str
        Of several results of one video, see `twins.WORDS`.
    """

    rates: SessionTable | float | None
    keypoints: Sequence[str] | None
    individuals: Sequence[str] | None
    scheme: Scheme
    preferred: Sequence[str]
    trim: Trim
    downsample: int
    min_visible: float
    correction: Correction
    anterior: Sequence[str] | None
    posterior: Sequence[str] | None
    skeleton: str | Sequence[tuple[str, str]] | None
    max_gap: MaxGap
    ignore_case: bool

    def settings(self, settings: StudySettings) -> StudySettings:
        """Settings of the study with the heading and skeleton that were chosen."""
        anterior, posterior = (
            [names] if isinstance(names, str) else names
            for names in (self.anterior, self.posterior)
        )
        skeleton = self.skeleton
        if isinstance(skeleton, str):
            skeleton = parse_skeleton(skeleton, settings.keypoints)
        return settings_from_names(
            settings, anterior=anterior, posterior=posterior, skeleton=skeleton
        )

    def entry(self, header: FileHeader, visible: float) -> str:
        """Entry of a session: how it came in, and the share of positions present, as JSON."""
        format = header.format
        folders = () if format == "array" else Origin.of(header.path).folders
        return json.dumps(
            {
                "format": format,
                "folders": folders,
                "trim": [self.trim.start, self.trim.stop],
                "downsample": self.downsample,
                "max_gap": self.max_gap.length,
                "min_visible": self.min_visible,
                "confidence_scale": self.correction.confidence_scale,
                "missing_value": self.correction.missing_value,
                "visible": round(visible, 6),
                "by": f"kpms_zarr {package_version()}",
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
        )
