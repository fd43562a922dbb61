"""Projects of keypoint-MoSeq, made by hand, become sessions and models of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

import kpms_zarr
from helpers.model import bouts_of, publish_model
from kpms_zarr import cli
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.label_sources import source_of
from kpms_zarr.store.ingest.project_sessions import match_recordings
from kpms_zarr.store.study.matching import Named

KEYPOINTS = ("nose", "ear", "neck", "tail", "tip")
LENGTHS = {"mouse_1DLC_resnet50": 80, "mouse_2DLC_resnet50": 95}


def write_results(path: Path, lengths: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Results of a model; returns the labels by recording."""
    rng, labels = np.random.default_rng(seed), {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, n_frames in lengths.items():
            group = file.create_group(key)
            group.attrs["type"] = "dict"
            labels[key] = bouts_of(rng, n_frames, 0).astype(np.int64) * 2
            group["syllable"] = labels[key]
            group["latent_state"] = rng.random((n_frames, 3))
            group["centroid"] = rng.random((n_frames, 2)) * 100
            group["heading"] = rng.random(n_frames)
    return labels


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the tracking files of two videos and one model."""
    folder = tmp_path / "project"
    (folder / "videos").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name, n_frames in LENGTHS.items():
        columns = pd.MultiIndex.from_product(
            [["s"], KEYPOINTS, ["x", "y", "likelihood"]], names=["scorer", "bodyparts", "coords"]
        )
        values = rng.random((n_frames, len(KEYPOINTS), 3)) * (90, 90, 1)
        table = pd.DataFrame(values.reshape(n_frames, -1), columns=columns)
        table.to_csv(folder / "videos" / f"{name}.csv")
    settings = {
        "bodyparts": KEYPOINTS, "use_bodyparts": KEYPOINTS[:4], "anterior_bodyparts": ["nose"],
        "posterior_bodyparts": ["tail"], "skeleton": [["nose", "neck"], ["tail", "tip"]],
        "fps": 25, "video_dir": "videos", "latent_dim": 3,
    }  # fmt: skip
    (folder / "config.yml").write_text(json.dumps(settings), "utf-8")  # YAML, too
    write_results(folder / "2024_05_31-10_00_00" / "results.h5", LENGTHS)
    (folder / "2024_05_31-10_00_00" / "syll_info.csv").write_text(
        "syllable,label,short_description\n2,rear,stands up\n4,,\n900,odd,\n", "utf-8"
    )
    (folder / "index.csv").write_text(
        "name,group\n" + "".join(f"{key},group {key[6]}\n" for key in LENGTHS), "utf-8"
    )
    return folder


MODEL = "2024_05_31-10_00_00"


def test_project__becomes_a_store(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    done = kpms_zarr.import_keypoint_moseq(project, store, workers=1)
    assert set(done.added) == set(LENGTHS)
    assert done.models == {MODEL: "v1"}
    assert done.columns == ("group",)
    assert any("900" in note for note in done.notes)
    found = kpms_zarr.info(store)
    assert {one.name: (one.n_frames, one.fps) for one in found.sessions} == {
        name: (n_frames, 25.0) for name, n_frames in LENGTHS.items()
    }
    assert found.settings.keypoints == KEYPOINTS[:4]
    assert (found.settings.anterior, found.settings.posterior) == (("nose",), ("tail",))
    assert found.settings.skeleton == (("nose", "neck"),)
    labels = kpms_zarr.open_labels(store, MODEL)
    with h5py.File(project / MODEL / "results.h5") as file:
        for row, name in enumerate(labels["session"].values):
            one = labels.isel(session=row, frame=slice(0, LENGTHS[name]))
            np.testing.assert_array_equal(one["syllable"], file[name]["syllable"])
            for ours, theirs in (("latent", "latent_state"), ("centroid",) * 2, ("heading",) * 2):
                np.testing.assert_allclose(one[ours], file[name][theirs], rtol=1e-6)
    assert kpms_zarr.syllable_names(store, MODEL)["name"].values[2] == "rear"
    table = kpms_zarr.summary(store, model=MODEL)
    assert set(table["state"].values) <= {0, 2, 4, 6, 8}
    assert table["frequency"].sum() == pytest.approx(1)


def test_imported_model__is_compared_and_exported_and_says_what_it_lacks(
    project: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    kpms_zarr.import_keypoint_moseq(project, store, workers=1)
    publish_model(store, "ours")
    both = kpms_zarr.compare(store, models=[MODEL, "ours"])
    assert both.pair(MODEL, "ours") is not None
    same = kpms_zarr.compare(
        store, models=[MODEL], labels={"file": project / MODEL / "results.h5"}
    ).pair(MODEL, "file")
    assert same.adjusted_rand_index == pytest.approx(1)
    for call in (
        lambda: kpms_zarr.reconstruct(store, MODEL),
        lambda: kpms_zarr.apply(store, model=MODEL),
    ):
        with pytest.raises(InputError, match="labels"):
            call()
    kpms_zarr.export(store, model=MODEL, to="kpms", out=tmp_path / "out")
    with (
        h5py.File(tmp_path / "out" / "results.h5") as ours,
        h5py.File(project / MODEL / "results.h5") as theirs,
    ):
        for name in LENGTHS:
            for data in ("syllable", "latent_state", "centroid", "heading"):
                assert ours[name][data].dtype == theirs[name][data].dtype
                np.testing.assert_allclose(ours[name][data], theirs[name][data], rtol=1e-6)
    source = source_of(tmp_path / "out" / "results.h5", "again")
    assert set(source.keys) == set(LENGTHS)


def test_recordings__are_found_with_folders_and_suffixes(project: Path, tmp_path: Path) -> None:
    called = {f"day1/{name}_top": n_frames for name, n_frames in LENGTHS.items()}
    labels = write_results(project / MODEL / "results.h5", called)
    config = json.loads((project / "config.yml").read_text("utf-8"))
    config["recording_name_suffix"] = "_top"
    (project / "config.yml").write_text(json.dumps(config), "utf-8")
    (project / "index.csv").unlink()
    store = tmp_path / "s.zarr"
    kpms_zarr.import_keypoint_moseq(project, store, workers=1)
    found = kpms_zarr.open_labels(store, MODEL).set_index(session="session")["syllable"]
    for key, values in labels.items():
        name = key.removeprefix("day1/").removesuffix("_top")
        row = found.sel(session=name)[: LENGTHS[name]]
        np.testing.assert_array_equal(row, values)


def test_recordings__that_may_be_several_are_refused() -> None:
    sessions = [Named(name, name, f"{name}.csv") for name in ("a_1", "a_2")]
    with pytest.raises(InputError, match="a_1"):
        match_recordings(["x/a"], sessions, where="results.h5")
    found, left = match_recordings(["x/a_1", "y/b"], sessions, where="results.h5")
    assert (found, left) == ({"a_1": "x/a_1"}, ("y/b",))


def test_project__that_is_wrong_is_refused(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(InputError, match="the folder of a keypoint-MoSeq project"):
        kpms_zarr.import_keypoint_moseq(tmp_path / "none", store)
    with pytest.raises(InputError, match="some of the models"):
        kpms_zarr.import_keypoint_moseq(project, store, models=["other"])
    assert not store.exists()
    short = {name: n_frames - 1 for name, n_frames in LENGTHS.items()}
    write_results(project / "short" / "results.h5", short)
    with pytest.raises(InputError, match="frames"):
        kpms_zarr.import_keypoint_moseq(project, store, models=["short"], workers=1)
    assert not store.exists()
    kpms_zarr.import_keypoint_moseq(project, store, models=[MODEL])
    with pytest.raises(InputError, match="a name that no model has yet"):
        kpms_zarr.import_keypoint_moseq(project, store, models=[MODEL])
    again = kpms_zarr.import_keypoint_moseq(project, store, models=[MODEL], overwrite=True)
    assert again.models == {MODEL: "v2"}


def spoil_labels(project: Path) -> None:
    """Numbers of syllables that none can have, in the last recording of a second model."""
    write_results(project / "second" / "results.h5", LENGTHS)
    with h5py.File(project / "second" / "results.h5", "r+") as file:
        file[list(LENGTHS)[-1]]["syllable"][7] = 1e6


def spoil_groups(project: Path) -> None:
    """A column of ``index.csv`` that the store uses itself."""
    text = (project / "index.csv").read_text("utf-8")
    (project / "index.csv").write_text(text.replace("name,group", "name,n_frames"), "utf-8")


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("spoil", [spoil_labels, spoil_groups])
def test_import_that_fails__leaves_the_store_as_it_was(
    project: Path, tmp_path: Path, spoil: Callable[[Path], None], is_new: bool
) -> None:
    """At the labels of the last model, and at the table of recordings, after all was ingested."""
    store = tmp_path / "s.zarr"
    if not is_new:
        first = rng_array(40)
        kpms_zarr.ingest(store, arrays={"other": first}, keypoint_names=KEYPOINTS[:4], fps=25,
                         anterior=["nose"], posterior=["tail"])  # fmt: skip
    spoil(project)
    videos = project / "videos"
    with pytest.raises(InputError):
        kpms_zarr.import_keypoint_moseq(project, store, files=videos, workers=1)
    if is_new:
        assert not store.exists()
        return
    assert [one.name for one in kpms_zarr.info(store).sessions] == ["other"]
    assert not kpms_zarr.info(store).models
    assert kpms_zarr.verify(store).is_sound


def rng_array(n_frames: int) -> np.ndarray:
    return np.random.default_rng(2).random((n_frames, 4, 2)) * 90


def test_command__imports(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "s.zarr")
    assert cli.main(["import-keypoint-moseq", str(project), store, "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert f"model {MODEL}: labels v1" in said
    assert cli.main(["import-keypoint-moseq", str(project / "videos"), store]) == 2
    assert "config.yml" in capsys.readouterr().err
