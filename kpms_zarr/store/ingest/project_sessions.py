"""Recordings of a keypoint-MoSeq project, and the sessions of a store that they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.matching import Named, match
from kpms_zarr.store.wording import listed


def match_recordings(
    keys: Iterable[str], sessions: Sequence[Named], *, suffix: str = "", where: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Find the session of each recording: by its whole name first, then by parts of it.

    The name of a recording may hold folders, with ``/`` or ``-`` between them, and a suffix.

    Parameters
    ----------
    keys : iterable of str
        Recordings as the project calls them.
    sessions : sequence of Named
    suffix : str
        That names may end in.
    where : str
        The file, for messages.

    Returns
    -------
    found : dict of str to str
        Session -> recording.
    left : tuple of str
        Recordings without a session.

    Raises
    ------
    InputError
        For a name that may be that of several sessions.
    """
    found: dict[str, str] = {}
    left = {key: list(_candidates(key, suffix)) for key in dict.fromkeys(keys)}
    for turn in range(max(map(len, left.values()), default=0)):
        free = [named for named in sessions if named.session not in found]
        called: dict[str, list[str]] = {}
        for key, names in left.items():
            if turn < len(names):
                called.setdefault(names[turn], []).append(key)
        rows = {name: {"recording": of[0]} for name, of in called.items() if len(of) == 1}
        matches = match(rows, {}, free, where)
        if matches.problems:
            raise InputError.of(matches.problems)
        taken = list(matches.rows.values())
        for session, name in matches.rows.items():
            if taken.count(name) > 1:
                raise InputError(
                    expected="the name of one session",
                    found=f"{called[name][0]!r}, which may be "
                    f"{listed(s for s, n in matches.rows.items() if n == name)}",
                    where=where,
                    fix="ingest the files with `name_by=`, so that sessions are called like the "
                    "recordings",
                )
            found[session] = called[name][0]
            del left[called[name][0]]
    return found, tuple(left)


def _candidates(key: str, suffix: str) -> Iterator[str]:
    """Names that a recording may have in a store, the whole one first, each once."""
    parts = re.split(r"[/\\]", key)
    names = [key, "-".join(parts), "_".join(parts), parts[-1]]
    if suffix:
        names += [name.removesuffix(suffix) for name in names]
    yield from dict.fromkeys(name for name in names if name)
