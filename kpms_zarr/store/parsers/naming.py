"""Names for the keypoints of files that hold none."""

from __future__ import annotations

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.base import ReadOptions


def keypoint_names(
    options: ReadOptions, n_keypoints: int, where: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that a person gave, or ``keypoint_0``, ``keypoint_1``, ... with a note.

    Returns
    -------
    names : tuple of str
    notes : tuple of str

    Raises
    ------
    InputError
        When there are not as many names as keypoints.
    """
    names = tuple(options.keypoint_names)
    if not names:
        names = tuple(f"keypoint_{number}" for number in range(n_keypoints))
        last = f" to `{names[-1]}`" if n_keypoints > 1 else ""
        return names, (
            f"the file holds no names for its keypoints: they are called `{names[0]}`{last}; "
            "name them with `keypoint_names=`",
        )
    if len(names) != n_keypoints:
        raise InputError(
            expected=f"{n_keypoints} names, one for every keypoint of the file",
            found=f"{len(names)} in `keypoint_names=`",
            where=where,
            fix="name every keypoint, in the order of the file",
        )
    return names, ()
