"""Groups of sessions of a store compared, in Python and on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

import kpms_zarr
from helpers.labels import publish_labels
from kpms_zarr import cli
from kpms_zarr.compute.analysis.groups.comparison import compare_groups_of
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=8, n_frames=900, n_keypoints=4)
QUICK = {"n_permutations": 200, "n_bootstrap": 200}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Labels ``m`` of eight sessions of six animals; syllable 0 is longer in group b."""
    folder = tmp_path_factory.mktemp("groups")
    place = str(folder / "study.zarr")
    write_store(place, STUDY)
    rng = np.random.default_rng(0)
    labels, lines = {}, ["session,group,animal"]
    for i, name in enumerate(STUDY.session_names):
        group = "ab"[i // 4]
        mean = np.array([12 if group == "b" else 4, 6, 6, 6])
        bouts = np.cumsum(rng.integers(1, 4, 400)) % 4
        length = 1 + rng.poisson(mean[bouts])
        labels[name] = np.repeat(bouts, length)[: STUDY.n_frames].astype(np.int16)
        lines.append(f"{name},{group},m{[0, 0, 1, 2, 3, 4, 5, 5][i]}")
    publish_labels(place, STUDY, "m", labels)
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kpms_zarr.annotate(place, folder / "table.csv")
    return place


def test_compare_groups__is_the_comparison_of_the_table(store):
    found = kpms_zarr.compare_groups(store, model="m", by="group", **QUICK)
    table = kpms_zarr.syllable_table(store, model="m")
    expected = compare_groups_of(table, by="group", **QUICK)
    assert found.tests.equals(expected.tests)
    assert (found.model, found.version) == ("m", "v1")
    assert found.smallest_p == pytest.approx(2 / 70)
    one = found.tests.sel(statistic="frequency", state=0)
    assert float(one["p"]) == pytest.approx(2 / 70)
    assert any("8 sessions of 6 animals" in note for note in found.notes)


def test_compare_groups__takes_animals_epochs_and_sessions(store, tmp_path):
    by_animal = kpms_zarr.compare_groups(store, model="m", by="group", block="animal", **QUICK)
    assert by_animal.unit == "animal"
    assert by_animal.groups["n_units"].values.tolist() == [3, 3]
    assert by_animal.groups["n_sessions"].values.tolist() == [4, 4]
    lines = ["session,start_s,stop_s,condition"]
    for name in STUDY.session_names:
        lines += [f"{name},0,10,dark", f"{name},10,20,light", f"{name},20,30,dark"]
    epochs = tmp_path / "epochs.csv"
    epochs.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = kpms_zarr.compare_groups(store, model="m", by="condition", epochs=epochs, **QUICK)
    assert (found.unit, found.blocked_by) == ("session", "session")
    assert found.smallest_p == pytest.approx(2 / 256)  # although 200 are drawn
    some = kpms_zarr.compare_groups(
        store, model="m", by="group", sessions=[*STUDY.session_names[1:7]], **QUICK
    )
    assert some.groups["n_units"].values.tolist() == [3, 3]


def test_command__prints_the_smallest_p_before_results(store, capsys):
    line = [
        "compare-groups", store, "--model", "m", "--by", "group", "--block", "animal",
        "--statistic", "frequency,duration", "--n-permutations", "200", "--n-bootstrap", "200",
    ]  # fmt: skip
    assert cli.main(line) == 0
    said = capsys.readouterr().out
    places = [
        said.index(words)
        for words in (
            "group differs between animals: 6 animals of 8 sessions",
            "smallest p that this design allows: 0.1 (all 20 assignments",
            "tested: 4 syllables: 0, 1, 2, 3",
            "frequency",
            "duration",
            "transitions, all at once: p ",
            "balanced accuracy ",
            "note: no p can be below 0.1",
            "methods: Groups were compared with kpms_zarr",
        )
    ]
    assert places[0] < places[1] < places[2] < places[5] < places[6] < places[7] < places[8]
    assert cli.main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["smallest_p"] == pytest.approx(0.1)
    assert found["tests"]["dims"] == {"statistic": 2, "state": 4, "group": 2}


def test_hints__are_commands(store, capsys):
    line = ["compare-groups", store, "--model", "m", "--by", "session"]
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    assert "--by session: expected a design that allows a test" in said
    assert cli.main(["compare-groups", store, "--model", "m", "--by", "diet"]) == 2
    assert "kpms-zarr annotate" in capsys.readouterr().err


def test_fingerprints__are_drawn(store):
    from kpms_zarr.viz import fingerprint_map

    found = kpms_zarr.compare_groups(store, model="m", by="group", **QUICK)
    heat = fingerprint_map(found.fingerprints)
    assert len(heat) == 8 * 4
