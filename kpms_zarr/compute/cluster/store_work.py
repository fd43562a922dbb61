"""Work on a whole store that needs no model: verification, and levels of detail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.cluster.crew import Crew
from kpms_zarr.compute.cluster.jobs import run_jobs
from kpms_zarr.compute.cluster.worker import Leash
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.ingest import verify as verification
from kpms_zarr.store.ingest.verify import Piece, PieceFindings, VerifySummary, read_piece
from kpms_zarr.store.model import levels
from kpms_zarr.store.model.levels import LevelsSummary, fill_sessions
from kpms_zarr.store.wording import counted

_JOBS_A_WORKER = 8
_MOST_CHUNKS = 4096
"""Of a job; what it has found of them is one message."""


# ------------------------------------------------------------------ verification


def verify(
    store: StoreLike,
    *,
    repair: bool = False,
    cluster: ClusterLike = None,
    on_progress: Callable[[str], None] | None = None,
) -> VerifySummary:
    """Read every chunk of a store and compare it with what is known about it.

    Tracked data are compared with their checksums, so that lost and altered chunks are found as
    well as those that cannot be read. One chunk is in memory at a time.

    Parameters
    ----------
    store : path or URL
    repair : bool
        Tidy up what killed processes left, and write consolidated metadata again. What is damaged
        is only named, with what to do.
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that read, as of :func:`kpms_zarr.fit`. What one of them finds
        damaged, or cannot read, is read once more by this process, whose word counts.
    on_progress : callable, optional
        Is given a line before each group.

    Returns
    -------
    VerifySummary

    Raises
    ------
    InputError
        When there is no store.
    """
    say = on_progress or (lambda text: None)
    access.open_group(store)  # refused before a cluster is begun
    with connected(cluster, say) as crew:
        if crew is None:
            return verification.verify(store, repair=repair, on_progress=on_progress)
        reading = _Reading(crew, store)
        found = verification.verify(
            store, repair=repair, on_progress=on_progress, read=reading.read
        )
    if reading.n_unread:
        found.notes.append(
            f"{counted(reading.n_unread, 'piece')} that workers could not read, sound as this "
            "process reads them (`kpms_zarr.doctor(cluster=CLUSTER, store=STORE)` looks at workers)"
        )
    return found


class _Reading:
    """Reading by workers.

    Attributes
    ----------
    n_unread : int
        Pieces that workers could not read or found damaged, and that are sound.
    """

    def __init__(self, crew: Crew, store: StoreLike) -> None:
        self._crew, self._store, self.n_unread = crew, store, 0

    def read(self, pieces: Sequence[Piece]) -> Iterator[PieceFindings]:
        """See ``ReadPieces``."""
        n_chunks = sum(piece.n_chunks for piece in pieces)
        n_jobs = _JOBS_A_WORKER * len(self._crew.workers()) if pieces else 1
        shares = _shares(pieces, min(_MOST_CHUNKS, n_chunks / n_jobs))
        names = [
            f"part {i + 1} of {counted(len(shares), 'part')} to verify" for i in range(len(shares))
        ]
        place = access.absolute(self._store)
        found = run_jobs(self._crew, names, read_pieces, [(place, share) for share in shares])
        root = access.open_group(self._store)
        for piece, one in zip(pieces, (one for job in found for one in job), strict=True):
            if one is not None:
                yield one
                continue
            here = read_piece(root, self._store, piece)
            self.n_unread += not here.damages
            yield here


def read_pieces(place: str, pieces: Sequence[Piece], leash: str) -> list[PieceFindings | None]:
    """Read pieces on a worker; None of those that it found damaged or could not read."""
    is_pulled = Leash(leash).is_pulled
    try:
        root = access.open_group(place)
    except Exception:  # whatever it is: who asked reads them, and says what is wrong
        return [None] * len(pieces)

    def read(piece: Piece) -> PieceFindings | None:
        if is_pulled():
            return None
        try:
            found = read_piece(root, place, piece)
        except Exception:  # as above
            return None
        return None if found.damages else found

    with ThreadPoolExecutor(_n_threads()) as pool:
        return list(pool.map(read, pieces))


def _n_threads() -> int:
    """Threads of the worker that this runs on."""
    from distributed import get_worker

    try:
        return int(get_worker().state.nthreads)
    except ValueError:  # called directly
        return 1


def _shares(pieces: Sequence[Piece], most: float) -> list[list[Piece]]:
    """Share pieces out, in order: about so many chunks in each share."""
    shares: list[list[Piece]] = []
    held = 0
    for piece in pieces:
        if not shares or held + piece.n_chunks > most:
            shares.append([])
            held = 0
        shares[-1].append(piece)
        held += piece.n_chunks
    return shares


# ------------------------------------------------------------------ levels of detail


def build_levels(
    store: StoreLike,
    model: str,
    *,
    version: str | None = None,
    overwrite: bool = False,
    cluster: ClusterLike = None,
) -> LevelsSummary:
    """Store the levels of detail of published labels, as fits of this release do by themselves.

    One pass over the labels, which are not changed. What a killed process left is made anew.

    Parameters
    ----------
    store : path or URL
    model : str
    version : str, optional
        Of the labels (default: the current one).
    overwrite : bool
        Build them even when they are there, as after damage.
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that do so, each some sessions, as of :func:`kpms_zarr.fit`.

    Returns
    -------
    LevelsSummary

    Raises
    ------
    InputError
        When there is no such model or version, or another process fits the model.
    OSError
        When nothing can be written there.
    """
    access.open_group(store, "r+")  # refused before a cluster is begun
    with connected(cluster) as crew:
        if crew is None:
            return levels.build_levels(store, model, version=version, overwrite=overwrite)

        def fill(version: str, every: Sequence[range]) -> None:
            names = [f"levels of sessions {rows.start} to {rows.stop - 1}" for rows in every]
            place = access.absolute(store)
            run_jobs(crew, names, fill_rows, [(place, model, version, rows) for rows in every])

        return levels.build_levels(store, model, version=version, overwrite=overwrite, fill=fill)


def fill_rows(place: str, model: str, version: str, rows: range, leash: str) -> None:
    """Fill the levels of some sessions on a worker; see :func:`fill_sessions`."""
    if not Leash(leash).is_pulled():
        fill_sessions(access.open_group(place, "r+"), model, version, rows)
