"""How far syllables replicate: in the summary, on the page of a report, in explore, in pictures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import holoviews as hv
import numpy as np
import pytest
from bokeh.models import ColumnDataSource, HoverTool

import kpms_zarr
from helpers.ensembles import make_ensemble
from kpms_zarr.cli import main
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.model.levels import build_levels, open_levels
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.model.replicability import reading
from kpms_zarr.store.model.settling import Drift, StageSettling, to_attrs
from kpms_zarr.viz.ethograms import views as ethograms
from kpms_zarr.viz.ethograms.shading import PALEST, SHADES
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.pages import syllables as page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.report import report
from kpms_zarr.viz.report.methods import methods
from kpms_zarr.viz.report.sections import sections_of
from kpms_zarr.viz.shared import facts
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables.agreement import replicability

MEMBERS = ("c0", "c1", "c2", "c3")
INDEX = np.array([0.44, 0.97, 0.89, 0.8, 0.7, 0.6, 0.599, 0.75, 0.9, 0.94, 1.0, 0.2])
BETWEEN_SESSIONS = INDEX - np.linspace(0, 0.3, len(INDEX))[::-1].clip(0, INDEX)
FAMILY = (np.arange(len(INDEX)) // 5).astype(np.int16)
HALVES = {"half_rand_index": 0.75, "half_matched_share": 0.855, "half_effective_number": 11.6}
SESSION_HALVES = {"session_half_rand_index": 0.41, "session_half_matched_share": 0.62}


def copied_model(store: Path, model: str, seed: int) -> None:
    """The model ``two`` under another name, as if fitted with another seed."""
    shutil.copytree(store / "models" / "two", store / "models" / model)
    root = access.open_group(store, "r+")
    parameters = root[f"models/{model}/parameters/v1"]
    made = attributes.read(parameters.attrs)["provenance"]
    made["settings"]["seed"] = seed
    attributes.write(parameters, {"provenance": made})
    attributes.write(root[f"models/{model}/labels/v1"], {"median_duration_overall": 300.0})
    consolidate(root, [f"models/{model}"])


def certainties(store: Path) -> np.ndarray:
    """Some certainty for every frame, NaN in the first two of each session."""
    shape = open_labels(store, "two")["syllable"].shape
    found = np.random.default_rng(0).choice([0.25, 0.5, 0.75, 1.0], size=shape)
    found[:, :2] = np.nan
    return found


@pytest.fixture(scope="module")
def ensemble(two_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store with ``two``, of which all is known, ``four`` of no sessions, and ``c0`` to ``c3``."""
    path = Path(shutil.copytree(two_stages, tmp_path_factory.mktemp("ensemble") / "study.zarr"))
    for seed, name in enumerate((*MEMBERS, "four")):
        copied_model(path, name, seed)
    known = {"replicability": INDEX, "member_agreement": INDEX / 2}
    certainty = certainties(path)
    make_ensemble(path, "four", members=MEMBERS, by_state=known, attrs=HALVES)
    make_ensemble(
        path,
        "two",
        members=MEMBERS,
        by_state={**known, "session_replicability": BETWEEN_SESSIONS, "family": FAMILY},
        attrs={**HALVES, **SESSION_HALVES, "median_duration_overall": 300.0},
        certainty=certainty,
    )
    return path


# ------------------------------------------------------------------ the summary


def test_summary__has_what_is_known(ensemble: Path) -> None:
    table = kpms_zarr.summary(ensemble, model="two")
    states = table["state"].values
    np.testing.assert_array_equal(table["replicability"], INDEX[states])
    np.testing.assert_array_equal(table["session_replicability"], BETWEEN_SESSIONS[states])
    np.testing.assert_array_equal(table["family"], FAMILY[states])
    assert list(table["replicability_reading"].values) == [reading(INDEX[i]) for i in states]
    frequency = open_labels(ensemble, "two")["frequency"].values[: len(INDEX)]
    may = INDEX >= 0.75
    assert table.attrs["interpreted_share"] == pytest.approx(frequency[may].sum())
    both = may & (BETWEEN_SESSIONS >= 0.75)
    assert table.attrs["interpreted_beyond_share"] == pytest.approx(frequency[both].sum())
    assert table.attrs["n_members"] == 4
    assert table.attrs["version"] == "v1"


def test_summary__of_less_has_less(ensemble: Path) -> None:
    further = {"replicability", "session_replicability", "family"}
    four, one = (kpms_zarr.summary(ensemble, model=name) for name in ("four", "c0"))
    assert further & set(four) == {"replicability"}
    assert not further & set(one)
    assert "a single chain" in one.attrs["replicability_in_words"]


def test_command__shows_columns_and_lines(
    ensemble: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["summary", str(ensemble), "--model", "two"]) == 0
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert re.search(r"replicability\s+reading\s+between sessions\s+reading\s+family$", header)
    first = next(row for row in rows if row.startswith("1 "))
    assert re.search(r"0\.97\s+stable\s+0\.\d\d\s+\S.*\s0$", first)
    text = "\n".join(rows)
    assert "two halves of the 4 chains, which share none: adjusted Rand index 0.75" in text
    assert "ensembles fitted to two halves of the sessions: adjusted Rand index 0.41" in text
    assert main(["summary", str(ensemble), "--model", "c0"]) == 0
    text = capsys.readouterr().out
    assert "reading" not in text
    assert text.rstrip().endswith("kpms-zarr fit STORE --model NAME --chains 8")
    assert main(["summary", str(ensemble), "--model", "four", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["attrs"]["half_rand_index"] == 0.75
    assert found["variables"]["replicability_reading"]["values"][1] == "stable"


# ------------------------------------------------------------------ pictures


def test_picture__dots_lie_in_the_band_of_their_reading(ensemble: Path) -> None:
    overlay = replicability(ensemble, model="two")
    bands, words, chains, sessions = overlay
    used = np.asarray(OpenModel(ensemble, "two").used)
    said = dict(zip(words.dimension_values("y"), words.dimension_values("words"), strict=True))
    for points, index in ((chains, INDEX), (sessions, BETWEEN_SESSIONS)):
        np.testing.assert_allclose(points.dimension_values("jaccard"), index[used])
        for y, reads in zip(
            points.dimension_values("jaccard"), points.dimension_values("reading"), strict=True
        ):
            (inside,) = [row for row in bands.data.itertuples() if row.y0 <= y < row.y1]
            assert said[(inside.y0 + inside.y1) / 2] == reads == reading(y)
    frequency = chains.dimension_values("frequency")
    assert (np.diff(frequency) <= 0).all()
    assert (np.diff(chains.dimension_values("size")) <= 0).all()
    assert len(replicability(ensemble, model="four")) == 3
    with pytest.raises(MissingData, match="one chain"):
        replicability(ensemble, model="c0")


@pytest.mark.parametrize("draw", [replicability, ethograms.ethogram, ethograms.bouts])
def test_pictures__render_without_complaints(
    ensemble: Path, caplog: pytest.LogCaptureFixture, draw: object
) -> None:
    figure = hv.render(draw(ensemble, model="two"), backend="bokeh")  # type: ignore[operator]
    assert caplog.text == ""
    columns = {name for source in figure.select(ColumnDataSource) for name in source.data}
    hovers = list(figure.select(HoverTool))
    assert hovers
    for hover in hovers:
        assert set(re.findall(r"@(\w+)", hover.tooltips)) <= columns


def test_ethogram__is_the_paler_the_less_certain(
    ensemble: Path, helpers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, known = helpers.two_stage_study, certainties(ensemble)
    image = ethograms.ethogram(ensemble, model="two", n_bins=100).get(0)
    codes = image.dimension_values("code", flat=False)[::-1].astype(int)
    width = study.n_frames // 100
    for row, values in zip(codes, known, strict=True):
        means = np.nanmean(values[: study.n_frames].reshape(-1, width), axis=1)
        shade = np.minimum((means.astype(np.float16) * SHADES).astype(int), SHADES - 1)
        np.testing.assert_array_equal((row - 1) % SHADES, shade)
    plain = ethograms.ethogram(ensemble, model="two", n_bins=100, by_certainty=False).get(0)
    labels = plain.dimension_values("syllable", flat=False)[::-1]
    np.testing.assert_array_equal(labels, (codes - 1) // SHADES - 1)
    without = ethograms.ethogram(ensemble, model="c0", n_bins=100).get(0)
    assert without.vdims == ["syllable"]
    # Of long sessions, from the levels of detail.
    build_levels(ensemble, "two", overwrite=True)
    levels = open_levels(ensemble, "two")
    monkeypatch.setattr(ethograms, "_MOST_FRAMES", 1)
    image = ethograms.ethogram(ensemble, model="two", n_bins=100).get(0)
    codes = image.dimension_values("code", flat=False)[::-1].astype(int)
    assert levels is not None
    stored = levels["certainty_16"].values[:, : codes.shape[1]]
    shade = np.minimum((stored * SHADES).astype(int), SHADES - 1)
    np.testing.assert_array_equal((codes - 1) % SHADES, shade)


def test_bouts__are_the_paler_the_less_certain(ensemble: Path, helpers: SimpleNamespace) -> None:
    known, labels = certainties(ensemble), helpers.truth(helpers.two_stage_study)
    rectangles = ethograms.bouts(ensemble, model="two", seconds=10).get(0)
    for name, row, values in zip(("session_000", "session_001"), labels, known, strict=True):
        mine = rectangles.select(session=name)
        stored = open_labels(ensemble, "two")["syllable"].sel(session=name).values
        _, length = helpers.runs(stored)
        stop = np.cumsum(length)
        n = len(mine)
        means = [np.nanmean(values[b - k : b]) for b, k in zip(stop[:n], length[:n], strict=True)]
        np.testing.assert_allclose(mine.dimension_values("certainty"), 100 * np.array(means))
        opacity = PALEST + (1 - PALEST) * np.array(means)
        np.testing.assert_allclose(mine.dimension_values("opacity"), opacity)
        assert len(row) == len(stored)
    plain = ethograms.bouts(ensemble, model="two", seconds=10, by_certainty=False).get(0)
    assert set(plain.dimension_values("opacity")) == {1.0}
    without = ethograms.bouts(ensemble, model="c0", seconds=10).get(0)
    assert set(without.dimension_values("opacity")) == {1.0}


# ------------------------------------------------------------------ the report


@pytest.fixture(scope="module")
def page(ensemble: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "r.html"
    report.report(ensemble, model="two", out=out)
    return out.read_text("utf-8")


def words_of(page: str) -> str:
    text = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_report__shows_which_syllables_may_be_interpreted(ensemble: Path, page: str) -> None:
    text = words_of(page)
    frequency = open_labels(ensemble, "two")["frequency"].values[: len(INDEX)]
    share = frequency[INDEX >= 0.75].sum()
    assert f"frames that may be interpreted {100 * share:.0f} %" in text
    assert "It is what 4 models agree on (c0, c1, c2, c3)" in text
    assert "stable: " in text
    assert "do not interpret: " in text
    assert "0.97, stable" in text
    assert "Labels are the paler, the fewer of the 4 chains have that label." in text
    rows = re.findall(r"<tr>(.*?)</tr>", page.split('id="replicability"')[1], re.S)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    assert cells[0] == [
        "Syllable", "Share of frames", "Between chains", "Reading", "Between sessions", "Reading",
        "Single chains", "Family",
    ]  # fmt: skip
    by_label = {row[0]: row[1:] for row in cells[1:]}
    assert by_label["4"] == [
        f"{100 * frequency[4]:.1f} %", "0.70", "doubtful", f"{BETWEEN_SESSIONS[4]:.2f}",
        reading(BETWEEN_SESSIONS[4]), "0.35", "0",
    ]  # fmt: skip
    card = words_of(re.findall(r'<li id="syllable-1">.*?</li>', page, re.S)[0])
    assert "seeds 0.97, stable" in card
    assert "family 0 (with 0, 2, 3, 4)" in card


def test_report__of_one_chain_says_that_nothing_is_known(ensemble: Path) -> None:
    opened = OpenModel(ensemble, "c0")
    (section,) = (one for one in sections_of(opened, 12) if one.anchor == "replicability")
    assert report._draw(section, ensemble).note == (
        "Left out: this is a model of one chain, without replicability of its syllables. To have "
        "it, fit several chains: kpms-zarr fit STORE --model NAME --chains 8."
    )
    known = facts.facts(opened)
    words = "Which of them may be interpreted is not known (one chain was fitted)."
    assert words in known.introduction
    assert "frames that may be interpreted" not in dict(known.facts)
    assert known.table is not None
    assert known.table.further == known.table.used[0].further == ()


# ------------------------------------------------------------------ methods


def test_methods__of_an_ensemble(ensemble: Path) -> None:
    found = methods(OpenModel(ensemble, "two"))
    text = " ".join(found.paragraphs)
    for words in (
        "2 sessions of", "5 keypoints in 2 dimensions", "fitted in 4 chains",
        "differ in the seed only (0 to 3)", "30 sweeps of the AR stage, then 120 sweeps",
        "Wade and Ghahramani, 2018", "adjusted Rand index 0.75",
        "syllables 1, 2, 3, 7, 8, 9 and 10 replicated and are interpreted (index 0.75 or more",
        "syllables 4 and 5 are doubtful", "syllables 0, 6 and 11 are not interpreted",
        "again, by the same measure, between ensembles fitted to two halves of the sessions (",
    ):  # fmt: skip
        assert words in text, words
    cited = [work.split(" (")[0].split()[0] for work in found.references]
    assert cited == ["Dahl", "Fox", "Hennig", "Hubert", "Wade", "Weinreb"]


def test_methods__seeds_of_an_ensemble_are_those_that_a_person_gave(
    ensemble: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(ensemble, tmp_path / "s.zarr"))
    root = access.open_group(copy, "r+")
    request = {"chains": 4, "config": {"seed": 17}, "given": ["seed"]}
    attributes.write(root["models/two"], {"ensemble": request})
    consolidate(root, ["models/two"])
    text = " ".join(methods(OpenModel(copy, "two")).paragraphs)
    assert "differ in the seed only (each made of 17 and the number of the chain)" in text


def test_methods__say_only_what_the_store_tells(ensemble: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ensemble, tmp_path / "s.zarr"))
    for name in MEMBERS[1:]:
        shutil.rmtree(copy / "models" / name)
    text = " ".join(methods(OpenModel(copy, "four")).paragraphs)
    assert "fitted in 4 chains, independently of each other." in text
    assert "seed" not in text
    assert "halves of the sessions were not compared" in text
    one = methods(OpenModel(copy, "c0"))
    text = " ".join(one.paragraphs)
    assert "One chain was Gibbs-sampled (seed 0): 30 sweeps of the AR stage, then 120" in text
    assert "no syllable can be said to replicate" in text
    assert [work.split()[0] for work in one.references] == ["Fox", "Weinreb"]


def test_methods__and_report_say_whether_the_fit_had_settled(
    ensemble: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(ensemble, tmp_path / "s.zarr"))
    root = access.open_group(copy, "r+")
    group = root["models/c0/parameters/v1"]
    still = {"log_evidence": Drift(0.1, 0.01, False), "n_used": Drift(0.0, 0.0, True)}
    judged = {"ar": StageSettling(30, 9), "full": StageSettling(120, 80, still)}
    attributes.write(group, to_attrs(judged))
    consolidate(root, ["models/c0"])
    opened = OpenModel(copy, "c0")
    said = "he full stage had not settled after 120 sweeps: over the last 40, against the 40 before"
    found = methods(opened)
    assert said in found.paragraphs[0]
    assert "AR stage had" not in found.paragraphs[0]  # where the other begins
    assert [work.split()[0] for work in found.references] == ["Fox", "Geweke", "Weinreb"]
    known = facts.facts(opened)
    assert f"T{said}" in known.introduction
    assert dict(known.facts)["log evidence (nat / frame)"] == "-2.033, -26.042"


def test_methods__of_labels_alone(fresh: Path, helpers: SimpleNamespace) -> None:
    helpers.publish(fresh, helpers.truth(), with_statistics=False, with_parameters=False)
    (paragraph,) = methods(OpenModel(fresh, "m")).paragraphs
    assert "3 sessions of" in paragraph
    assert "interpreted" not in paragraph


# ------------------------------------------------------------------ explore


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Errors that the page shows in place of a view."""
    caught: list[object] = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(a))
    yield caught
    assert not caught


def test_page__cards_order_and_detail(ensemble: Path, failures: list[object]) -> None:
    state = State(Study(ensemble), page="syllables", model="two")
    page = page_module._SyllablesPage(state)
    card = next(one for one in page._cards.cards if one["key"] == 1)
    assert card["lines"][2:] == [
        "seeds: 0.97, stable",
        f"sessions: {BETWEEN_SESSIONS[1]:.2f}, {reading(BETWEEN_SESSIONS[1])}",
        "family: 0",
    ]
    (said,) = page._replicability
    assert "may be interpreted beyond these sessions" in said.object
    assert len(page._below) == 3  # how to choose, a heading, the picture
    page._order.value = "most replicable first"
    shown = [one["key"] for one in page._cards.cards]
    assert shown[:3] == [10, 1, 9]
    state.syllable = 4
    heading = page._detail._heading.object
    assert "Jaccard index between halves of the chains 0.70, doubtful" in heading
    assert "family 0 (with 0, 1, 2, 3)" in heading
    # What another model lacks is not offered, and nothing of the first stays.
    state.model = "c0"
    assert "most replicable first" not in page._order.options
    assert page._order.value == "most frequent first"
    assert all(len(one["lines"]) == 2 for one in page._cards.cards)
    (said,) = page._replicability
    assert "kpms-zarr fit STORE --model NAME --chains 8" in said.object
    assert "is not known: one chain was fitted" in page._detail._heading.object
