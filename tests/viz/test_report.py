from __future__ import annotations

import dataclasses
import html
import logging
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.report import cards as report_cards
from kpms_zarr.viz.report import report, sections
from kpms_zarr.viz.report.sections import lively_start, sections_of
from kpms_zarr.viz.shared import facts, reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.opened import OpenModel


class _Page(HTMLParser):
    """Tags with their attributes, the text outside scripts, and the rows of the tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img"):
            self._inside = tag
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.words.append(data)
        if self._inside in ("td", "span") and data.strip() and self.rows:
            self.rows[-1].append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = "td" if tag == "span" else ""

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(
    store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[report.ReportSummary, str]:
    out = tmp_path_factory.mktemp("report") / "report.html"
    summary = report.report(store, model="m", out=out)
    return summary, out.read_text("utf-8")


def test_report__summary_tells_what_was_written(
    written: tuple[report.ReportSummary, str], store: Path
) -> None:
    summary, text = written
    assert Path(summary.path).stat().st_size == summary.n_bytes == len(text.encode())
    assert (summary.model, summary.version, summary.n_sessions) == ("m", "v1", 3)
    assert [p.name for p in Path(summary.path).parent.iterdir()] == ["report.html"]


def test_report__loads_nothing(written: tuple[report.ReportSummary, str]) -> None:
    page = _Page(written[1])
    for tag, attributes in page.tags:
        if tag in ("script", "img", "iframe", "source", "embed"):
            assert "src" not in attributes, (tag, attributes)
        assert tag != "link", attributes
        if tag == "a":
            assert (attributes["href"] or "").startswith("#")
    styles = re.findall(r"<style.*?</style>", written[1], re.S)
    assert styles
    assert not any(re.search(r"@import|@font-face|url\(", style) for style in styles)
    (policy,) = (a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_report__accessible_skeleton(written: tuple[report.ReportSummary, str]) -> None:
    page = _Page(written[1])
    names = [tag for tag, _ in page.tags]
    assert dict(page.tags)["html"]["lang"] == "en"
    assert names.count("h1") == names.count("title") == names.count("main") == 1
    anchors = {a["id"] for t, a in page.tags if t == "h2"}
    links = {(a["href"] or "")[1:] for t, a in page.tags if t == "a"}
    assert links == anchors
    assert {"cards", "player", "graph", "ethogram", "bouts"} <= anchors
    figures = sum(tag == "figure" and a.get("class") != "example" for tag, a in page.tags)
    # Left out: quality, confidences, scree and components (not counted yet), denoised poses,
    # stability (no windows kept), latent scores.
    assert figures == 9
    assert names.count("figure") == names.count("figcaption")
    assert sum(bool(a.get("aria-label")) for _, a in page.tags) >= figures


def test_report__says_what_was_fitted(
    written: tuple[report.ReportSummary, str], labels: list[np.ndarray]
) -> None:
    text = _Page(written[1]).text
    n_frames = sum(map(len, labels))
    assert f"3 sessions, {n_frames / 30 / 3600:,.3g} hours of video ({n_frames:,} frames" in text
    assert "8 keypoints in 2 dimensions" in text
    assert "12 syllables hold at least 0.5 % of the frames each" in text
    assert "study.zarr" in text
    assert "by kpms_zarr" in text
    assert "kappa" in text


def test_report__table_of_syllables_is_right(
    written: tuple[report.ReportSummary, str], store: Path
) -> None:
    rows = [row for row in _Page(written[1]).rows if len(row) == 5]
    labels = open_labels(store, "m")
    assert len(rows) == 12
    for label, share, bouts, median, mean in rows:
        state = labels.isel(state=int(label))
        assert share == f"{100 * float(state['frequency']):.1f} %"
        assert bouts == f"{int(state['n_bouts']):,}"
        assert median == f"{float(state['median_duration']):,.0f}"
        assert mean == f"{float(state['mean_duration']):,.0f}"
        assert f"background:{syllable_color(int(label))}" in written[1]


@pytest.fixture(scope="module")
def of_two_stages(two_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "two.html"
    report.report(two_stages, model="two", out=out)
    return out.read_text("utf-8")


def test_report__says_the_stages(
    of_two_stages: str, written: tuple[report.ReportSummary, str]
) -> None:
    text = _Page(of_two_stages).text
    assert (
        "It was fitted in 30 sweeps of the AR stage (kappa 263,000 at its end), "
        "then 120 sweeps of the full stage (kappa 10,000 at its end)." in text
    )
    assert "sweeps (AR + full) 30 + 120" in text
    assert "5 of 8 keypoints in 2 dimensions (point0, point2, point3, point5, point7)" in text
    assert "a dashed line parts the stages (AR stage, then full stage)" in text
    before = _Page(written[1]).text
    assert "sweeps of the" not in before
    assert "dashed line parts" not in before


@pytest.mark.full
def test_report__says_so_where_example_bouts_would_make_it_too_large(
    two_stages: Path, tmp_path: Path, of_two_stages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = "Example bouts: kpms-zarr explore"
    n_cards = of_two_stages.count('<li id="syllable-')
    assert n_cards > 3
    assert of_two_stages.count("<summary>Example bouts") == n_cards
    assert words not in of_two_stages
    monkeypatch.setattr(report_cards, "_EXAMPLE_BUDGET", 1)  # that of the first one
    report.report(two_stages, model="two", out=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text("utf-8")
    assert text.count("<summary>Example bouts") == 1
    assert text.count(words) == n_cards - 1


@pytest.mark.parametrize(("frequent", "second"), [((0, 1, 2, 3), 10.0), ((), 20.0)])
def test_lively_start__is_where_most_syllables_in_use_are(
    frequent: tuple[int, ...], second: float
) -> None:
    """Three windows of 10 s: one syllable; three of those in use; seven rare ones."""
    syllable = np.zeros(300, np.int16)
    syllable[100:200] = np.arange(100) % 3 + 1
    syllable[200:] = np.arange(100) % 7 + 10
    labels = xr.Dataset({"syllable": (("session", "frame"), syllable[None])})
    if frequent:
        frequency = np.zeros(20)
        frequency[list(frequent)] = 0.25
        labels["frequency"] = ("state", frequency)
    session = access.Session("s", 0, 300, 10.0)
    assert lively_start(labels, session, 10.0) == second
    assert lively_start(labels, session, 20.0) == 0.0  # there is one window of that length


def test_report__tracked_and_denoised_where_there_is_a_full_stage(
    of_two_stages: str, written: tuple[report.ReportSummary, str]
) -> None:
    page = _Page(of_two_stages)
    assert {"denoised", "traces", "poses"} <= {a["id"] for t, a in page.tags if t == "h2"}
    assert "worst tracked keypoints of session_000" in page.text
    assert "Tracked and denoised" not in _Page(written[1]).text


def test_report__settings_of_both_stages_whatever_they_are(
    tmp_path: Path, helpers: SimpleNamespace
) -> None:
    study = dataclasses.replace(helpers.two_stage_study, n_frames=300)
    path = tmp_path / "s.zarr"
    write_store(path, study)
    settings = {
        "stage": "both",
        "noise_dof": 5,
        "noise_slope": -0.5,
        "noise_intercept": 0.25,
        "noise_variance": 1.0,
        "sample_noise_variance": "none",
        "centroid_step_variance": None,
        "scale": "session",
    }
    helpers.publish_two_stages(path, study=study, settings=settings)
    known = facts.facts(OpenModel(path, "two", "v1"))
    assert dict(known.settings) == {name: str(value) for name, value in settings.items()}
    assert (
        "The full stage took tracking noise with 5 degrees of freedom, a noise level that falls "
        "with confidence (slope -0.5, intercept 0.25), a noise variance of 1.0, "
        "a centroid step variance from the data, positions divided by a factor for each session."
    ) in known.introduction
    root = access.open_group(path, "r+")
    root["models/two/parameters/v1"].attrs["centroid_step_variance"] = 0.32276
    known = facts.facts(OpenModel(path, "two", "v1"))
    assert "a centroid step variance of 0.323 (from the data)" in known.introduction
    helpers.publish_two_stages(path, study=study, settings={"noise_dof": 7, "scale": {"odd": 1}})
    known = facts.facts(OpenModel(path, "two", "v2"))
    assert "The full stage took tracking noise with 7 degrees of freedom. " in known.introduction
    helpers.publish_two_stages(path, study=study, settings={})
    known = facts.facts(OpenModel(path, "two", "v3"))
    assert known.settings == ()
    assert "The full stage took" not in known.introduction


def test_report__tree_of_the_syllables_where_it_is_cheap(
    two_stages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenModel(two_stages, "two")

    def drawn() -> report.Drawn:
        found = [one for one in sections_of(opened, 12) if one.anchor == "similarity"]
        return report._draw(found[0], two_stages)

    one = drawn()
    assert (one.note, len(one.roots)) == ("", 1)
    labels = one.roots[0].xaxis[0].major_label_overrides.values()
    assert {int(text.split()[0]) for text in labels} == set(opened.used)
    monkeypatch.setattr(sections, "_COMPARED_FRAMES", 10)
    assert "kpms-zarr similarity" in drawn().note


def test_report__figures_zoom_together_where_they_show_the_same(two_stages: Path) -> None:
    def ranges(anchor: str) -> list[int]:
        sections = sections_of(OpenModel(two_stages, "two"), 12)
        (section,) = (section for section in sections if section.anchor == anchor)
        drawn = report._draw(section, two_stages)
        assert drawn.note == ""
        number: dict[int, int] = {}
        return [number.setdefault(id(f.x_range), len(number)) for f in drawn.roots]

    assert ranges("denoised") == [0, 0, 0]
    # The two log likelihoods, then median, kappa and syllables, then the evidences of both stages
    # and the parts of the full stage.
    assert ranges("traces") == [0, 1, 2, 2, 2, 0, 1, 1]


def test_report__tells_no_places_of_the_machine(
    written: tuple[report.ReportSummary, str], store: Path
) -> None:
    text = written[1]
    assert str(store.parent) not in text
    assert "/home/someone" not in text
    assert "videos" in _Page(text).text


def test_report__snippet_opens_the_labels(
    written: tuple[report.ReportSummary, str],
    store: Path,
    labels: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (code,) = re.findall(r"<pre tabindex=\"0\"><code>(.*?)</code>", written[1], re.S)
    lines = html.unescape(code).splitlines()
    assert len(lines) == 3
    monkeypatch.chdir(store.parent)
    scope: dict[str, xr.Dataset] = {}
    exec("\n".join([*lines[:2], f"shown = {lines[2]}"]), scope)
    np.testing.assert_array_equal(scope["shown"].values, labels[0])


def test_report__names_are_escaped(tmp_path: Path, helpers: SimpleNamespace) -> None:
    study = dataclasses.replace(helpers.study, n_frames=400)
    path = tmp_path / "a&b <i>.zarr"
    write_store(path, study)
    root = access.open_group(path, "r+")
    names = np.asarray(["</script><script>alert(1)</script>", "é – 'x'", "b"], dtype=object)
    root["keypoints/session"][:] = names  # type: ignore[index]
    helpers.publish(path, helpers.truth(study), study=study)
    out = tmp_path / "r.html"
    report.report(path, model="m", out=out)
    text = out.read_text("utf-8")
    assert "<script>alert" not in text
    assert "<i>" not in text
    assert "a&amp;b &lt;i&gt;.zarr" in text


def test_report__statistics_that_are_absent_are_one_line_each(
    fresh: Path, tmp_path: Path, helpers: SimpleNamespace
) -> None:
    helpers.publish(fresh, helpers.truth(), with_statistics=False, with_parameters=False)
    out = tmp_path / "r.html"
    report.report(fresh, model="m", out=out)
    page = _Page(out.read_text("utf-8"))
    assert page.text.count("Left out: this is a version") == 11
    assert page.text.count("Left out: it needs") == 4  # quality and components: other commands
    assert "kpms-zarr quality own.zarr" in page.text
    assert "kpms-zarr pca own.zarr" in page.text
    assert [tag for tag, _ in page.tags].count("figure") == 4  # ethogram, bouts, player, graph
    assert str(tmp_path) not in page.text


@pytest.mark.full
def test_report__size_stays_small_when_labels_change_at_every_frame(
    tmp_path: Path, helpers: SimpleNamespace
) -> None:
    study = SyntheticStudy(n_sessions=20, n_frames=20_000, n_keypoints=3, fps=240.0, seed=1)
    path = tmp_path / "large.zarr"
    write_store(path, study)
    flicker = [(np.arange(20_000) % 12).astype(np.int16)] * 20
    helpers.publish(path, flicker, study=study)
    summary = report.report(path, model="m", out=tmp_path / "r.html")
    assert summary.n_sessions == 20
    assert summary.n_bytes < 12e6
    assert "The first 12 of 20 sessions" in (tmp_path / "r.html").read_text("utf-8")


def test_report__replaces_an_older_page_changes_no_store_and_complains_in_no_log(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy.zarr"
    shutil.copytree(store, copy)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*")}
    out = tmp_path / "r.html"
    out.write_text("old")
    with caplog.at_level(logging.WARNING):
        report.report(copy, model="m", out=out)
    assert caplog.text == ""
    assert out.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*")} == before


def test_report__a_failed_write_keeps_the_older_page(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.html"
    out.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    monkeypatch.setattr(report, "_page", lambda *_: "new")
    with pytest.raises(OSError, match="disk full"):
        report.report(store, model="m", out=out)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert out.read_text() == "old"


def test_report__places_that_cannot_be_written(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder of that name"):
        report.report(store, model="m", out=tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        report.report(store, model="m", out=tmp_path / "nowhere" / "r.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, report.MAX_SESSIONS + 1])
def test_report__too_few_or_too_many_sessions(store: Path, tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="1 to 200 sessions"):
        report.report(store, model="m", out=tmp_path / "r.html", max_sessions=count)


def test_report__missing_model_or_store(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a fitted model named 'other'"):
        report.report(store, model="other", out=tmp_path / "r.html")
    with pytest.raises(InputError, match="a kpms_zarr store"):
        report.report(tmp_path / "none.zarr", model="m", out=tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("store_place", "name"),
    [
        ("/data/x/study.zarr", "study.zarr"),
        ("study.zarr/", "study.zarr"),
        ("s3://bucket/lab/study.zarr", "study.zarr"),
        ("https://user:key@host/study.zarr?token=abc", "study.zarr"),
        (r"C:\data\study.zarr", "study.zarr"),
    ],
)
def test_store_name__without_its_place(store_place: str, name: str) -> None:
    assert reading.store_name(store_place) == name
