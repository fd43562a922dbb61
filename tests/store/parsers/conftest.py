"""Real files with what an independent reader found in them, and the checks that parsers share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.damage import survives, survives_damage
from kpms_zarr.store.parsers.base import NO_OPTIONS, FileHeader, Parser, ReadOptions

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


@dataclass(frozen=True)
class Loaded:
    """A whole file: its header, and arrays by session name."""

    header: FileHeader
    position: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]


class Real:
    """The real files."""

    folder = DATA

    def __init__(self) -> None:
        if not DATA.is_dir():
            pytest.skip(
                "the folder shared/data with real tracking files is not beside the checkout"
            )
        self.expected: dict[str, Any] = json.loads((DATA / "EXPECTED.json").read_text())

    def names(self, folder: str) -> list[str]:
        """Files of a folder, as named in EXPECTED.json."""
        return [name for name in self.expected if name.split("/")[0] == folder]

    def others(self, folder: str) -> list[Path]:
        """Files of all other folders."""
        return [DATA / name for name in self.expected if name.split("/")[0] != folder]

    @staticmethod
    def check_numbers(
        values: np.ndarray, wanted: dict[str, Any], kind: str, mean_within: float, within: float
    ) -> None:
        """Compare the numbers of a session with those of the independent reader."""
        check_numbers(values, wanted, kind, mean_within, within)

    def load(self, parser: Parser, name: str, options: ReadOptions = NO_OPTIONS) -> Loaded:
        """A real file."""
        return load_whole(parser, DATA / name, options)

    def check(self, found: Loaded, name: str, *, confidence: bool = True) -> None:
        """Compare with EXPECTED.json."""
        wanted = self.expected[name]
        assert set(found.position) == set(wanted["keys"])
        for session, numbers in wanted["keys"].items():
            check_numbers(found.position[session], numbers, "coord", 1e-3, 2e-4)
            if confidence:
                check_numbers(found.confidence[session], numbers, "conf", 2e-6, 2e-6)
        if wanted["bodyparts"]:
            for track in found.header.tracks:
                assert list(track.keypoints) == wanted["bodyparts"]


def check_numbers(
    values: np.ndarray, wanted: dict[str, Any], kind: str, mean_within: float, within: float
) -> None:
    """Compare the numbers of a session with those of the independent reader."""
    values = values.astype(np.float64)
    n_dims = 3 if kind == "coord" else 2
    assert list(values.shape) == wanted["shape"][:n_dims]
    share = wanted["nan_frac" if kind == "coord" else "conf_nan_frac"]
    assert np.isnan(values).mean() == pytest.approx(share, abs=1e-6)
    if share < 1:
        assert np.nanmean(values) == pytest.approx(wanted[f"{kind}_mean"], abs=mean_within)
    middle = np.array(wanted[f"middle_frame_{kind}s"], dtype=float)
    np.testing.assert_allclose(values[wanted["middle_frame"]], middle, atol=within, rtol=0)


def load_whole(
    parser: Parser, path: Path, options: ReadOptions = NO_OPTIONS, *, block_frames: int = 100
) -> Loaded:
    """Read a file in small blocks and join them, checking what every parser promises."""
    header = parser.inspect(path, options)
    assert header.format == parser.name
    keys = [track.key for track in header.tracks]
    assert len(set(keys)) == len(keys) > 0
    parts: dict[str, dict[str, list[np.ndarray]]] = {"position": {}, "confidence": {}}
    for block in parser.read(path, block_frames, options):
        assert 0 < block.n_frames <= block_frames
        for kind in parts:
            for key, values in getattr(block, kind).items():
                assert values.dtype == np.float32
                assert len(values) == block.n_frames
                before = parts[kind].setdefault(key, [])
                assert block.start == sum(len(part) for part in before)
                before.append(values)
    joined = {
        kind: {key: np.concatenate(values) for key, values in by_key.items()}
        for kind, by_key in parts.items()
    }
    assert set(joined["position"]) == set(keys)
    assert set(joined["confidence"]) == (set(keys) if header.has_confidence else set())
    for track in header.tracks:
        shape = (len(track.keypoints), len(header.space))
        assert joined["position"][track.key].shape[1:] == shape
        assert not np.isinf(joined["position"][track.key]).any()
    stem = path.name.removesuffix(path.suffix)
    name = {key: f"{stem}_{key}" if key else stem for key in keys}
    return Loaded(header, *({name[key]: v for key, v in joined[kind].items()} for kind in joined))


@pytest.fixture(name="survives_damage")
def _survives_damage():
    """Function that damages a file in many ways; returns how often it is read to its end."""
    return survives_damage


@pytest.fixture(name="survives")
def _survives():
    """Function that reads whatever a file holds."""
    return survives


@pytest.fixture
def real() -> Real:
    """The real files; skips where they are absent."""
    return Real()


@pytest.fixture
def load():
    """Function that reads a whole file."""
    return load_whole
