"""kpms-zarr movies: options reach the functions, and what a person reads."""

from __future__ import annotations

import json

import pytest

import kpms_zarr
from kpms_zarr import cli
from kpms_zarr.viz.movies.study import MoviesProgress, MoviesSummary

SUMMARY = MoviesSummary(
    "movies",
    ("syllable_000.mp4", "syllable_002.mp4"),
    n_bouts=7,
    n_frames=182,
    n_bytes=12_345,
    bad_videos={"mouse_3": "expected a video file, found no such file (a.mp4)"},
    notes=("1 movie of the same command replaced",),
    seconds=1.5,
)


@pytest.fixture
def seen(monkeypatch):
    """What the functions are called with."""
    calls = []

    def called(name):
        def call(store, *, on_progress, **given):
            on_progress(MoviesProgress("syllable_000.mp4", 0, 2, 0.5))
            on_progress(MoviesProgress("", 2, 2))
            calls.append((name, store, given))
            return SUMMARY

        return call

    for name in ("movies", "overlay_movie"):
        monkeypatch.setattr(kpms_zarr, name, called(name), raising=False)
    return calls


def test_movies__without_options_leaves_the_defaults_to_the_function(seen, capsys):
    assert cli.main(["movies", "study.zarr", "--model", "m"]) == 0
    assert seen == [
        (
            "movies",
            "study.zarr",
            {
                "model": "m",
                "out": "movies",
                "format": "mp4",
                "speed": 1.0,
                "videos": False,
                "overlay": False,
                "syllables": None,
            },
        )
    ]
    found = capsys.readouterr()
    assert found.err == ""  # no progress on a pipe
    assert found.out.splitlines() == [
        "LEFT OUT: session mouse_3: expected a video file, found no such file (a.mp4)",
        "note: 1 movie of the same command replaced",
        "2 movies, 7 bouts (12.3 kB) in movies: syllable_000.mp4 to syllable_002.mp4",
    ]


def test_movies__options_reach_the_function(seen):
    given = ["--out", "x", "--format", "gif", "--speed", "0.5", "--videos", "camera", "--overlay"]
    given += ["--syllables", "0,3-5", "--rows", "2", "--columns", "3", "--before", "0.2"]
    given += ["--after", "0.4", "--cell", "96", "--seed", "7"]
    assert cli.main(["movies", "s.zarr", "--model", "m", *given]) == 0
    assert seen[0][2] == {
        "model": "m", "out": "x", "format": "gif", "speed": 0.5, "videos": "camera",
        "overlay": True, "syllables": [0, 3, 4, 5], "rows": 2, "columns": 3, "before": 0.2,
        "after": 0.4, "cell": 96, "seed": 7,
    }  # fmt: skip
    cli.main(["movies", "s.zarr", "--model", "m", "--videos"])
    assert seen[1][2]["videos"] is True


def test_movies__of_a_session_call_the_other_function(seen):
    given = ["--session", "a", "--overlay", "--start", "2", "--stop", "5", "--width", "640"]
    assert cli.main(["movies", "s.zarr", "--model", "m", *given]) == 0
    name, _, found = seen[0]
    assert name == "overlay_movie"
    assert found == {
        "model": "m", "session": "a", "out": "movies", "format": "mp4", "speed": 1.0,
        "videos": True, "start": 2.0, "stop": 5.0, "width": 640,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--session", "a"], "add --overlay"),
        (["--session", "a", "--overlay", "--rows", "2"], "found --rows"),
        (["--session", "a", "--overlay", "--syllables", "2"], "found --syllables"),
        (["--start", "2"], "add --session"),
    ],
)
def test_movies__refuses_options_that_do_not_belong_together(seen, capsys, given, words):
    assert cli.main(["movies", "s.zarr", "--model", "m", *given]) == 2
    assert words in capsys.readouterr().err
    assert seen == []


def test_movies__refuses_what_are_no_numbers(capsys):
    with pytest.raises(SystemExit):
        cli.main(["movies", "s.zarr", "--model", "m", "--syllables", "a"])
    assert "numbers of syllables such as 0,1,5-8" in capsys.readouterr().err


def test_movies__as_json(seen, capsys):
    assert cli.main(["movies", "s.zarr", "--model", "m", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == ["syllable_000.mp4", "syllable_002.mp4"]
    assert list(found["bad_videos"]) == ["mouse_3"]


def test_movies__that_are_stopped_say_what_is_there(monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(kpms_zarr, "movies", stop, raising=False)
    assert cli.main(["movies", "s.zarr", "--model", "m"]) == 130
    assert "movies that are there are whole" in capsys.readouterr().err
