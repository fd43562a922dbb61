"""Levels of detail of labels: exact modes, published whole, and nothing else changed."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.compute.events import Noted
from kpms_zarr.compute.runs.publish import add_levels
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.core.schema import LEVELS, variable
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import levels, models
from kpms_zarr.store.model.levels import bin_modes, build_levels, open_levels
from kpms_zarr.store.study.settings import StudySettings

LENGTHS = (20_000, 1, 7_001, 16, 8_192)


def naive_mode(labels: np.ndarray) -> tuple[int, float]:
    """Commonest label, the lower number of equals, -1 last; and its share."""
    count = Counter(labels.tolist())
    best = min(count, key=lambda label: (-count[label], label if label >= 0 else 10**9))
    return best, count[best] / len(labels)


def bouts(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    """Labels of short bouts, some without a syllable."""
    length = rng.geometric(1 / 20, n_frames)
    return np.repeat(rng.integers(-1, 9, n_frames), length)[:n_frames].astype(np.int16)


def publish(
    store: Any, rows: list[np.ndarray], certainty: list[np.ndarray] | None = None, model: str = "m"
) -> None:
    """A store that has labels only."""
    root = access.open_group(store, "r+") if access.exists(store) else access.create(store)
    sessions = tuple(Session(f"s{i}", i, len(row), 30.0) for i, row in enumerate(rows))
    names = ("syllable", "certainty") if certainty else ("syllable",)
    writer = models.LabelWriter(
        root, model, sessions=sessions, settings=StudySettings(space=("x", "y")), names=names
    )
    for i, row in enumerate(rows):
        for start in range(0, len(row), writer.block_frames):
            stop = min(start + writer.block_frames, len(row))
            values = {"syllable": row[start:stop]}
            if certainty:
                values["certainty"] = certainty[i][start:stop]
            writer.write(Block(i, start, stop), values)
    writer.publish("fit", {})


def files(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def damages(store: Path) -> list[str]:
    """What verify says to do about levels; the labels here lack what else labels have."""
    return [d.fix for d in kpms_zarr.verify(store).damages if "levels" in d.where]


@pytest.fixture(scope="module")
def rows() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [bouts(rng, n) for n in LENGTHS]


@pytest.fixture(scope="module")
def certainty(rows: list[np.ndarray]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    found = [rng.uniform(size=len(row)).astype(np.float16) for row in rows]
    for row in found:
        row[rng.uniform(size=len(row)) < 0.3] = np.nan
    found[0][:100] = np.nan
    return found


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, rows: list[np.ndarray], certainty: list[np.ndarray]
) -> Path:
    path = tmp_path_factory.mktemp("levels") / "study.zarr"
    publish(path, rows, certainty)
    return path


# ------------------------------------------------------------------ numbers


@settings(max_examples=examples(80), deadline=None)
@given(
    labels=st.lists(st.sampled_from([-1, 0, 1, 2, 7, 32_767]), min_size=1, max_size=90),
    frames=st.integers(1, 100),
)
def test_bin_modes__agree_with_counting(labels: list[int], frames: int) -> None:
    values = np.array(labels, np.int16)
    found = bin_modes(values, frames)
    wanted = [naive_mode(values[i : i + frames]) for i in range(0, len(values), frames)]
    assert found.syllable.tolist() == [label for label, _ in wanted]
    np.testing.assert_allclose(found.share, [share for _, share in wanted], atol=1e-3)
    assert found.certainty is None


def test_bin_modes__not_the_mean_and_not_the_mode_of_modes() -> None:
    # 2 leads in two of the three bins of 3 frames; 5 has most of the nine frames.
    labels = np.array([2, 2, 5, 2, 2, 5, 5, 5, 5], np.int16)
    assert bin_modes(labels, 3).syllable.tolist() == [2, 2, 5]
    assert bin_modes(labels, 9).syllable.tolist() == [5]


@pytest.mark.parametrize(
    ("piece", "n_together"),
    [
        (levels._PIECE_FRAMES, 256),
        (4096, 2),
        pytest.param(levels._PIECE_FRAMES, 2, marks=pytest.mark.full),
        pytest.param(4096, 256, marks=pytest.mark.full),
    ],
)
def test_levels__exact_at_every_level(
    tmp_path: Path,
    rows: list[np.ndarray],
    certainty: list[np.ndarray],
    piece: int,
    n_together: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However it is cut into pieces and groups of sessions."""
    monkeypatch.setattr(levels, "_MOST_BINS", 64)
    monkeypatch.setattr(levels, "_PIECE_FRAMES", piece)
    monkeypatch.setattr(layout, "_LEVEL_SESSIONS", n_together)
    publish(tmp_path / "s.zarr", rows, certainty)
    built = build_levels(tmp_path / "s.zarr", "m")
    assert built.frames_per_bin == (16, 64, 256, 1024)
    found = open_levels(tmp_path / "s.zarr", "m")
    assert found is not None
    for n in built.frames_per_bin:
        assert found.sizes[f"bin_{n}"] == -(-max(LENGTHS) // n)
        for i, (row, known) in enumerate(zip(rows, certainty, strict=True)):
            wanted = [naive_mode(row[k : k + n]) for k in range(0, len(row), n)]
            syllable = found[f"syllable_{n}"].values[i]
            assert syllable[: len(wanted)].tolist() == [label for label, _ in wanted]
            assert (syllable[len(wanted) :] == -1).all()
            share = found[f"share_{n}"].values[i]
            np.testing.assert_allclose(share[: len(wanted)], [s for _, s in wanted], atol=1e-3)
            assert np.isnan(share[len(wanted) :]).all()
            mean = [
                part[~np.isnan(part)].mean(dtype=np.float64) if not np.isnan(part).all() else np.nan
                for part in (known[k : k + n] for k in range(0, len(row), n))
            ]
            np.testing.assert_allclose(
                found[f"certainty_{n}"].values[i, : len(mean)], mean, atol=1e-3
            )
    assert np.isnan(found["certainty_16"].values[0, 0])


@pytest.mark.parametrize(
    ("n_frames", "coarsest"),
    [(1, 16), (16_384, 16), (16_385, 64), (100_000, 256), (10**10, 2**20)],
)
def test_level_frames__until_about_a_thousand_bins(n_frames: int, coarsest: int) -> None:
    assert levels.level_frames(n_frames)[-1] == coarsest


# ------------------------------------------------------------------ in the store


def test_build_levels__leave_the_labels_as_they_are(store: Path) -> None:
    before = files(store / "models/m/labels/v1")
    built = build_levels(store, "m", overwrite=True)
    assert (built.version, built.has_built) == ("v1", True)
    assert files(store / "models/m/labels/v1") == before


def test_build_levels__plain_xarray_opens_them(store: Path) -> None:
    build_levels(store, "m")
    found = xr.open_zarr(store, group="models/m/levels/v1", consolidated=True)
    assert found["session"].values.tolist() == [f"s{i}" for i in range(len(LENGTHS))]
    assert found["n_frames"].values.tolist() == list(LENGTHS)
    assert found["syllable_64"].dtype == np.int16
    assert {str(name) for name in found.variables} <= {var.name for var in LEVELS}
    assert xr.open_datatree(store, engine="zarr")["models/m/levels/v1"].sizes["bin_16"] > 0


def test_build_levels__keep_metadata_current_and_the_store_sound(store: Path) -> None:
    build_levels(store, "m", overwrite=True)
    assert is_current(access.open_group(store))
    assert damages(store) == []
    assert not any("metadata" in note for note in kpms_zarr.verify(store).notes)
    assert [model.versions for model in models.list_models(store)] == [("v1",)]


def test_build_levels__once_is_enough(store: Path) -> None:
    build_levels(store, "m")
    before = files(store)
    assert not build_levels(store, "m").has_built
    assert files(store) == before


def test_build_levels__few_large_chunks() -> None:
    """An overview of 1,000 sessions of 100,000 frames is a handful of requests."""
    n_chunks = {}
    for n in levels.level_frames(100_000):
        shape = (1000, -(-100_000 // n))
        chunks = layout.chunk_shape(variable("levels", f"syllable_{n}"), shape)
        n_chunks[n] = int(np.prod([-(-size // c) for size, c in zip(shape, chunks, strict=True)]))
        assert 2 * np.prod(chunks) <= 2**21
    assert n_chunks == {16: 8, 64: 4, 256: 4}
    long = layout.chunk_shape(variable("levels", "syllable_16"), (1000, 10**7 // 16))
    assert long == (8, 4096)


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_build_levels__killed_halfway_are_not_there(
    tmp_path: Path, rows: list[np.ndarray], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    publish(store, rows[2:])
    real, calls = levels._session_levels, []

    def dies(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > after:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        if after < 3:
            patch.setattr(levels, "_session_levels", dies)
        else:  # everything written, nothing said of it
            patch.setattr(levels, "consolidate" if after == 5 else "_make_room", _raise)
        with pytest.raises(Killed):
            build_levels(store, "m")
    if after < 5:
        assert open_levels(store, "m") is None
    assert damages(store) == []
    assert any("metadata" in line for line in kpms_zarr.verify(store, repair=True).repaired)
    assert damages(store) == []
    build_levels(store, "m")
    whole = open_levels(store, "m")
    assert whole is not None
    assert whole["syllable_16"].values[0, 0] == naive_mode(rows[2][:16])[0]
    assert is_current(access.open_group(store))
    assert kpms_zarr.verify(store).notes == ["no sessions"]


def _raise(*_: Any) -> None:
    raise Killed


def test_open_levels__of_each_version_its_own(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    publish(store, [np.zeros(40, np.int16)])
    publish(store, [np.ones(40, np.int16)])
    assert open_levels(store, "m") is None
    build_levels(store, "m", version="v1")
    assert open_levels(store, "m") is None
    found = open_levels(store, "m", "v1")
    assert found is not None
    assert found["syllable_16"].values.tolist() == [[0, 0, 0]]
    build_levels(store, "m")
    found = open_levels(store, "m")
    assert found is not None
    assert found["syllable_16"].values.tolist() == [[1, 1, 1]]


def test_build_levels__wrong_names_are_errors(store: Path) -> None:
    with pytest.raises(InputError, match="nobody"):
        build_levels(store, "nobody")
    with pytest.raises(InputError):
        build_levels(store, "m", version="v9")
    assert not (store / "models/nobody").exists()


def test_verify__damaged_levels_can_be_made_again(tmp_path: Path, rows: list[np.ndarray]) -> None:
    store = tmp_path / "s.zarr"
    publish(store, rows[2:])
    build_levels(store, "m")
    chunk = store / "models/m/levels/v1/syllable_16/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    (fix,) = damages(store)
    assert "build_levels(store, 'm', version='v1', overwrite=True)" in fix
    build_levels(store, "m", overwrite=True)
    assert damages(store) == []


def test_add_levels__a_failure_is_told_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s.zarr"
    publish(store, [np.zeros(40, np.int16)])
    told: list[Any] = []

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(levels, "fill_sessions", full)
    add_levels(access.open_group(store, "r+"), "m", "v1", told.append)
    (event,) = told
    assert isinstance(event, Noted)
    assert "No space left" in event.text
    assert "build_levels" in event.text
    assert models.require_model(store, "m") == "v1"
    assert open_levels(store, "m") is None
    assert damages(store) == []


def test_levels__on_other_storage() -> None:
    store = "memory://levels/study.zarr"
    publish(store, [np.arange(40, dtype=np.int16) // 16])
    build_levels(store, "m")
    found = open_levels(store, "m")
    assert found is not None
    assert found["syllable_16"].values.tolist() == [[0, 1, 2]]
