"""Keypoints at the front and at the rear of the animal, guessed by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kpms_zarr.store.core.names import joined
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import StudySettings
from kpms_zarr.store.wording import call

_EAR = r"(^|_)(left|right)?ears?(left|right|[lr])?(_|$)"
_FRONT = ("nose", "snout", "muzzle", "beak", "head", _EAR, "neck")
_REAR = (
    r"tail_?base|base_?(of_?)?tail|tail_?root|tail_?start|tail_?set",
    r"rump|pelvis",
    r"low(er)?_?(spine|back)|(spine|back)_?low(er)?",
    r"hip",
    r"spine",
    r"back",
    r"tail",
)


def suggest_heading(keypoints: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Guess anterior and posterior keypoints by their names; empty where no name tells."""
    words = {name: re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower() for name in keypoints}
    plain = {name: re.sub(r"[^a-z0-9]+", "_", word) for name, word in words.items()}
    front: list[str] = []
    for pattern in _FRONT:
        front = front or [name for name in keypoints if re.search(pattern, plain[name])]
    rear: list[str] = []
    for pattern in _REAR:
        found = [n for n in keypoints if n not in front and re.search(pattern, plain[n])]
        if pattern == "spine":
            found = sorted(found, key=_number)[-1:]
        if pattern == "tail":
            found = sorted(found, key=_number)[:1]
        rear = rear or found
    return tuple(front), tuple(rear)


def _number(name: str) -> int:
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else 0


def require_heading(
    study: StudySettings, where: str, *, stored: StudySettings | None = None
) -> None:
    """Refuse a study that does not say where the front and the rear of the animal are.

    Parameters
    ----------
    where : str
        Path or URL of the store.
    stored : StudySettings, optional
        Of the store, when ``study`` may use some of its keypoints only.

    Raises
    ------
    InputError
        With keypoints that could be meant, and how to say so.
    """
    if study.anterior and study.posterior:
        return
    sides = [side for side in ("anterior", "posterior") if not getattr(study, side)]
    lost = " and ".join(sides)
    front, rear = suggest_heading(study.keypoints)
    front, rear = study.anterior or front, study.posterior or rear
    ends = {"anterior": list(front or "X"), "posterior": list(rear or "Y")}
    advice = "did you mean" if front and rear else "name them among the keypoints"
    expected = "anterior and posterior keypoints, which give the heading of the animal"
    others = call("pca", where, **ends)
    fixed = "Or `fix_heading=True` for an animal that never turns."
    if stored is None or set(study.keypoints) >= set(stored.keypoints):
        raise InputError(
            expected=expected,
            found=f"no {lost} keypoint among {', '.join(study.keypoints)}",
            where=where,
            fix=f"{advice}: {others} (or with the same options: "
            f"{call('ingest', where, 'FILES')}). {fixed}",
        )
    left_out = [name for side in sides for name in getattr(stored, side)]
    fixes = [f"{advice}: {others}"]
    if left_out:
        fixes.insert(0, f"add {joined(left_out)} to `use_keypoints=`")
    raise InputError(
        expected=f"{expected}, among those used",
        found=f"no {lost} keypoint among {', '.join(study.keypoints)}, the ones of "
        "`use_keypoints=`",
        where=where,
        fix=f"{'. Or '.join(fixes)}. {fixed}",
    )
