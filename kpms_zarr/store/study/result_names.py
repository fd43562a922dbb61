"""Names of tracking files: the video, and whether it is a copy, filtered or raw."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kpms_zarr.store.study.session_names import split_name

_COPY = re.compile(
    r"^(?:copy of |kopie von |copie de )?(?P<name>.+?)"
    r"(?:\s*\(\d+\)|\s+-\s+(?:copy|kopie|copie|copia)(?:\s*\(\d+\))?"
    r"|[ _](?:copy|kopie)(?: \d+)?)*$",
    re.IGNORECASE,
)


_FILTERED = re.compile(r"(?:^filtered[_. -]|[_. -]filtered(?=$|[_. -]))", re.IGNORECASE)


# What trackers add to the name of the video, from the first of these on.
_TRACKER = re.compile(
    r"(?:DLC_|DeepCut_|_superanimal_|[._]predictions\b|[._]analysis\b|[._]tracked\b|"
    r"[._](?:proofread|corrected)\b|\.(?:mp4|avi|mov|mkv|m4v|wmv|mpe?g|webm)(?=$|\.)).*$",
    re.IGNORECASE,
)


# SLEAP: project.000_video.analysis
_OF_PROJECT = re.compile(r"^.*\.\d{3}_(?P<video>.+)$")


@dataclass(frozen=True)
class Result:
    """Parts of the name of a tracking file.

    Attributes
    ----------
    folder : tuple of str
        Nearest first; empty when not known.
    video : str
        Name of the video, in small letters.
    is_filtered : bool
    without_copy : str
        The name without the marks of a copy: equal to the stem where it is none.
    stem, suffix : str
    """

    folder: tuple[str, ...]
    video: str
    is_filtered: bool
    without_copy: str
    stem: str
    suffix: str


def result_of(name: str, folder: tuple[str, ...] = ()) -> Result:
    """Read the name of a tracking file."""
    stem, suffix = split_name(name)
    match = _COPY.match(stem)
    plain = match["name"] if match else stem
    return Result(
        folder, _video(plain), bool(_FILTERED.search(plain)), plain, stem, suffix.strip(".").lower()
    )


def _video(plain: str) -> str:
    of_project = _OF_PROJECT.match(plain)
    bare = _FILTERED.sub("", of_project["video"] if of_project else plain)
    return (_TRACKER.sub("", bare) or bare).strip(" _-.").lower()
