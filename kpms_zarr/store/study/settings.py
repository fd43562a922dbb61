"""Settings of a study that all its sessions share: keypoints, heading and skeleton."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import zarr

from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.consolidation import update_attributes
from kpms_zarr.store.core.names import hint, match, parse_bones, quoted, typed
from kpms_zarr.store.errors import InputError, Problem


@dataclass(frozen=True)
class StudySettings:
    """Settings that the sessions of a store have in common.

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
    """Replace settings, after checking every name against the keypoints.

    Raises
    ------
    InputError
        For names that are not keypoints, with the nearest ones that are.
    """
    problems: list[Problem] = []
    anterior = _meant("`anterior=`", anterior, settings, problems)
    posterior = _meant("`posterior=`", posterior, settings, problems)
    ends = [end for bone in skeleton or () for end in bone]
    ends = _meant("`skeleton=`", ends, settings, problems)
    if set(anterior or settings.anterior) & set(posterior or settings.posterior):
        problems.append(
            Problem(
                "different keypoints at the front and at the rear",
                f"{', '.join(anterior or settings.anterior)} as anterior and "
                f"{', '.join(posterior or settings.posterior)} as posterior",
                "`anterior=` and `posterior=`",
                "name the nose or head as anterior, the tail base or lower spine as posterior",
            )
        )
    if problems:
        raise InputError.of(problems)
    return replace(
        settings,
        anterior=tuple(anterior or settings.anterior),
        posterior=tuple(posterior or settings.posterior),
        skeleton=tuple(zip(ends[::2], ends[1::2], strict=True)) or settings.skeleton,
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
    option, problems = "`use_keypoints=`", list[Problem]()
    n_asked = len(set(keypoints))
    keypoints = _meant(option, keypoints, settings, problems)
    once = dict.fromkeys(keypoints)
    problems += named_twice(keypoints, option)
    if n_asked < 2:
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


def named_twice(keypoints: Sequence[str], option: str) -> list[Problem]:
    """Problem of names that occur more than once."""
    twice = [name for name, n in Counter(keypoints).items() if n > 1]
    if not twice:
        return []
    found = f"{', '.join(twice)} more than once"
    return [Problem("every keypoint once", found, option, "name each keypoint once")]


def keypoint_columns(stored: StudySettings, keypoints: Sequence[str]) -> tuple[int, ...] | None:
    """Columns of keypoints along the keypoint dimension of the store; None = all, in order.

    Raises
    ------
    InputError
        For names that the store does not have, with the nearest ones that it has.
    """
    if tuple(keypoints) == stored.keypoints:
        return None
    problems: list[Problem] = []
    keypoints = _meant("`use_keypoints=`", keypoints, stored, problems)
    if problems:
        raise InputError.of(problems)
    return tuple(stored.keypoints.index(name) for name in keypoints)


def parse_skeleton(text: str, keypoints: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Parse ``"a-b,b-c"`` as bones; names are typed as in lists, in quotes where need be.

    Names may hold "-" themselves when ``keypoints`` tells which names there are.

    Raises
    ------
    InputError
        When a bone is not two names joined by "-", or can be read as two of them in several ways.
    """
    try:
        parts = parse_bones(text)
    except ValueError as error:
        raise InputError.of([_no_bone(str(error))]) from None
    bones, problems = [], []
    for part, ways in parts:
        known = [way for way in ways if all(match(end, keypoints or ()) for end in way)]
        ways = known or ways
        if not ways:
            problems.append(_no_bone(repr(part)))
        elif len(known) > 1:
            problems.append(_several_bones(part, known))
        else:
            bones.append(max(ways, key=lambda way: sum(end in (keypoints or ()) for end in way)))
    if problems:
        raise InputError.of(problems)
    return bones


def _no_bone(found: str) -> Problem:
    return Problem(
        "bones as two keypoints joined by '-', separated by commas",
        found,
        "`skeleton=`",
        "write for example `skeleton='nose-spine1,spine1-spine2'`",
    )


def _several_bones(part: str, bones: Sequence[tuple[str, str]]) -> Problem:
    ways = [typed("-".join(quoted(end, "-") for end in way)) for way in bones]
    return Problem(
        "a bone that can be read in one way",
        f"{part!r}, which can be any of {', '.join(' to '.join(map(repr, way)) for way in bones)}",
        "`skeleton=`",
        f"put names that hold '-' in quotes: {' or '.join(ways)}",
    )


def _meant(
    option: str, names: Sequence[str] | None, settings: StudySettings, problems: list[Problem]
) -> list[str]:
    """Match names to keypoints of the store; adds to ``problems`` those that are none."""
    found = []
    for name in names or ():
        known = match(name, settings.keypoints)
        if known is not None:
            found.append(known)
            continue
        problem = Problem(
            f"one of the keypoints {', '.join(map(quoted, settings.keypoints))}",
            repr(name),
            option,
            hint(name, settings.keypoints).strip() or "give names as `kpms_zarr.info` shows them",
        )
        if problem not in problems:
            problems.append(problem)
    return found
