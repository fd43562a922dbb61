"""Sessions that the rows of a long table are about, several rows to a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from kpms_zarr.store.errors import Problem
from kpms_zarr.store.study.matching import Named, lacking, match


def match_keys(
    numbers: Mapping[str, int], named: Sequence[Named], where: str
) -> tuple[dict[str, list[str]], list[Problem], list[str]]:
    """Find the sessions that keys of a table stand for.

    Parameters
    ----------
    numbers : mapping of str to int
        Key -> number of its first row.
    named : sequence of Named
    where : str
        The table, for errors.

    Returns
    -------
    sessions : dict of str to list of str
        Of each key: one, or all of one file with several animals.
    problems : list of Problem
        Keys of no session, of several, and sessions that have two.
    notes : list of str
    """
    found = match({key: {"key": key} for key in numbers}, numbers, named, where)
    problems = [
        replace(
            problem,
            expected="the same name for a session in all its rows",
            found=problem.found.replace(" with different values", ", two names"),
            fix="write the name of the session in all of them",
        )
        if problem.expected == "one row for each session"
        else problem
        for problem in found.problems
    ]
    problems += lacking(found.unused, numbers, named, found, where)
    sessions: dict[str, list[str]] = {}
    for session, key in found.rows.items():
        sessions.setdefault(key, []).append(session)
    is_exact = all(session == key for session, key in found.rows.items())
    return sessions, problems, [] if is_exact or not found.rows else [found.note()]
