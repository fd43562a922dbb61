"""Settings of a study that all its sessions share: keypoints, heading and skeleton."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store import access, attributes
from kpms_zarr.store.access import StoreLike
from kpms_zarr.store.consolidation import update_attributes
from kpms_zarr.store.errors import InputError, Problem


@dataclass(frozen=True)
class StudySettings:
    """What the sessions of a store have in common.

    Attributes
    ----------
    keypoints : tuple of str
    space : tuple of str
    anterior, posterior : tuple of str
        Keypoints whose means define the heading (posterior -> anterior).
    skeleton : tuple of (str, str)
        Bones, for drawing only.
    """

    keypoints: tuple[str, ...] = ()
    space: tuple[str, ...] = ()
    anterior: tuple[str, ...] = ()
    posterior: tuple[str, ...] = ()
    skeleton: tuple[tuple[str, str], ...] = ()


def read_settings(store: StoreLike | zarr.Group) -> StudySettings:
    """Settings of an existing store."""
    root = store if isinstance(store, zarr.Group) else access.open_group(store)
    group = access.keypoints_group(root)
    attrs = attributes.read(dict(root.attrs))
    names = ("keypoint", "space")
    keypoints, space = (
        tuple(str(v) for v in np.asarray(group[n][:])) if group is not None else ()  # type: ignore[index]
        for n in names
    )
    return StudySettings(
        keypoints,
        space,
        tuple(attrs.get("anterior_keypoints", ())),
        tuple(attrs.get("posterior_keypoints", ())),
        tuple((a, b) for a, b in attrs.get("skeleton", ())),
    )


def write_settings(root: zarr.Group, settings: StudySettings) -> None:
    """Write what the user chose into the attributes of the store."""
    chosen: dict[str, Any] = {
        "anterior_keypoints": list(settings.anterior),
        "posterior_keypoints": list(settings.posterior),
        "skeleton": [list(bone) for bone in settings.skeleton],
    }
    known = attributes.read(dict(root.attrs))
    if any(known.get(name) != value for name, value in chosen.items()):
        update_attributes(root, "", chosen)


def settings_from_names(
    settings: StudySettings,
    *,
    anterior: Sequence[str] | None,
    posterior: Sequence[str] | None,
    skeleton: Sequence[tuple[str, str]] | None,
) -> StudySettings:
    """Replace what is given, after checking every name against the keypoints.

    Raises
    ------
    InputError
        For names that are not keypoints, with the nearest ones that are.
    """
    problems: list[Problem] = []
    for option, names in (("--anterior", anterior), ("--posterior", posterior)):
        problems += [
            _unknown(option, n, settings) for n in names or () if n not in settings.keypoints
        ]
    for bone in skeleton or ():
        problems += [
            _unknown("--skeleton", n, settings) for n in bone if n not in settings.keypoints
        ]
    if set(anterior or settings.anterior) & set(posterior or settings.posterior):
        problems.append(
            Problem(
                "different keypoints at the front and at the rear",
                f"{', '.join(anterior or settings.anterior)} as anterior and "
                f"{', '.join(posterior or settings.posterior)} as posterior",
                "--anterior and --posterior",
                "name the nose or head as anterior, the tail base or lower spine as posterior",
            )
        )
    if problems:
        raise InputError.of(problems)
    return replace(
        settings,
        anterior=tuple(anterior or settings.anterior),
        posterior=tuple(posterior or settings.posterior),
        skeleton=tuple(skeleton or settings.skeleton),
    )


def subset_keypoints(settings: StudySettings, keypoints: Sequence[str]) -> StudySettings:
    """Settings of a model that uses some keypoints of the store only.

    Parameters
    ----------
    settings : StudySettings
        Of the store.
    keypoints : sequence of str
        Keypoints to use, in this order.

    Returns
    -------
    StudySettings
        With the heading keypoints that are used, which may be none, and the bones between
        keypoints that are used.

    Raises
    ------
    InputError
        With all the problems: unknown names, a name twice, fewer than two.
    """
    option = "--use-keypoints"
    once = dict.fromkeys(keypoints)
    problems = [_unknown(option, name, settings) for name in once if name not in settings.keypoints]
    twice = [name for name in once if list(keypoints).count(name) > 1]
    if twice:
        problems.append(
            Problem(
                "every keypoint once",
                f"{', '.join(twice)} more than once",
                option,
                "name each keypoint once",
            )
        )
    if len(once) < 2:
        problems.append(
            Problem(
                "two keypoints or more",
                ", ".join(once) or "none",
                option,
                f"name at least two of {', '.join(settings.keypoints)}, or leave the option out",
            )
        )
    if problems:
        raise InputError.of(problems)
    return replace(
        settings,
        keypoints=tuple(keypoints),
        anterior=tuple(name for name in settings.anterior if name in once),
        posterior=tuple(name for name in settings.posterior if name in once),
        skeleton=tuple((a, b) for a, b in settings.skeleton if a in once and b in once),
    )


def keypoint_columns(stored: StudySettings, keypoints: Sequence[str]) -> tuple[int, ...] | None:
    """Where keypoints lie along the keypoint dimension of the store; None = all, in its order.

    Raises
    ------
    InputError
        For names that the store does not have, with the nearest ones that it has.
    """
    if tuple(keypoints) == stored.keypoints:
        return None
    lost = [name for name in dict.fromkeys(keypoints) if name not in stored.keypoints]
    if lost:
        raise InputError.of(_unknown("--use-keypoints", name, stored) for name in lost)
    return tuple(stored.keypoints.index(name) for name in keypoints)


def parse_skeleton(text: str, keypoints: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """``"a-b,b-c"`` as bones.

    Names may hold "-" themselves when ``keypoints`` tells which names there are.

    Raises
    ------
    InputError
        When a bone is not two names joined by "-".
    """
    bones = []
    for part in text.split(","):
        cuts = [i for i, char in enumerate(part) if char == "-"]
        options = [(part[:i].strip(), part[i + 1 :].strip()) for i in cuts]
        known = [o for o in options if keypoints and o[0] in keypoints and o[1] in keypoints]
        if not options:
            raise InputError(
                expected="bones as two keypoints joined by '-', separated by commas",
                found=repr(part),
                where="--skeleton",
                fix="write for example --skeleton nose-spine1,spine1-spine2",
            )
        bones.append((known or options)[0])
    return bones


def _unknown(option: str, name: str, settings: StudySettings) -> Problem:
    near = difflib.get_close_matches(name, settings.keypoints, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return Problem(
        f"one of the keypoints {', '.join(settings.keypoints)}",
        repr(name),
        option,
        f"{hint}give names as they are in the file",
    )
