"""Progress of a computation as Python, a terminal, a pipe and a notebook show it."""

from __future__ import annotations

import io
import re
import sys
import types

import pytest
from tqdm.auto import tqdm as bar_of_notebooks

import kpms_zarr
from kpms_zarr import progress
from kpms_zarr.compute.events import Noted, SweepEnded, SweepStarted, TileDone
from kpms_zarr.progress import Line, Progress
from kpms_zarr.store.core.commands import for_shell


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ended(sweep, n_sweeps=4):
    names = dict.fromkeys(SweepEnded.__dataclass_fields__, 0)
    return SweepEnded(**{
        **names, "sweep": sweep, "n_sweeps": n_sweeps, "stage": "ar", "seconds": 0.1,
        "median_duration": 400.0, "n_used": 7, "kappa": 1e4, "log_likelihood": -1.5,
        "workers": None,
    })  # fmt: skip


def sweeps(show, n_sweeps=4):
    for sweep in range(1, n_sweeps + 1):
        show(SweepStarted(sweep, n_sweeps, "ar"))
        show(ended(sweep, n_sweeps))


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_progress__ends_with_the_last_sweep(stream):
    sweeps(Progress(stream))
    text = stream.getvalue()
    assert "ar sweep 4/4" in text
    assert "7 syllables in use" in text
    assert ("[" in text) == stream.isatty()


def test_progress__clears_its_bar_on_a_terminal():
    stream = Terminal()
    show = Progress(stream)
    show(SweepEnded(1, 2, 0.1, -1.0, 400.0, 5, 1e4))
    show(Noted("something"))
    show(SweepEnded(2, 2, 0.1, -1.0, 400.0, 5, 1e4))
    shown = stream.getvalue()
    assert shown.startswith(
        "\r[#####.....] ar sweep 1/2, ? left, median 400 ms, 5 syllables in use"
    )
    assert "\r \r" in re.sub(" +", " ", shown[: shown.index("note: something\n")])
    assert re.search(r"\r\[#{10}\] ar sweep 2/2, 00:00 left, .*-1\.000 nat/frame *\n$", shown)
    assert stream.getvalue().count("\n") == 2


def test_progress__times_each_stage_by_itself_and_shows_tiles_of_long_sweeps(monkeypatch):
    now = 1e9
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    stream = io.StringIO()
    show = Progress(stream)
    for sweep, stage in [(1, "ar"), (2, "ar"), (3, "full"), (4, "full")]:
        show(SweepStarted(sweep, 4, stage))
        for tile in (1, 2, 3, 4):
            now += 1 if stage == "ar" else 40
            show(TileDone(sweep, tile, 4))
        show(SweepEnded(sweep, 4, 1.0, -1.0, 400.0, 5, 1e4, stage))
    assert [line.split(", median")[0] for line in stream.getvalue().splitlines()] == [
        "ar sweep 1/4, ? left",
        # Not the second, which is quick.
        "full sweep 3/4, tile 1 of 4, ? left",
        "full sweep 3/4, tile 3 of 4, 04:40 left",
        "full sweep 3/4, 02:21 left",
        "full sweep 4/4, tile 2 of 4, 01:40 left",
        "full sweep 4/4, tile 4 of 4, 00:36 left",
        "full sweep 4/4, 00:00 left",
    ]


def test_progress__speaks_the_words_of_the_caller():
    text = "set sessions=['a']"
    for words, expected in ((str, text), (for_shell, for_shell(text))):
        stream = io.StringIO()
        Progress(stream, words=words)(Noted(text))
        assert stream.getvalue() == f"note: {expected}\n"


@pytest.fixture
def in_notebook(monkeypatch):
    """As in a kernel; ``False``: as in IPython on a terminal."""

    def be(is_kernel=True):
        shell = types.SimpleNamespace(config={"IPKernelApp": {}} if is_kernel else {})
        ipython = types.SimpleNamespace(get_ipython=lambda: shell)
        monkeypatch.setitem(sys.modules, "IPython", ipython)

    return be


def test_progress__is_rendered_by_a_notebook(in_notebook, capsys):
    in_notebook()
    show = Progress()
    assert show._kind is bar_of_notebooks
    sweeps(show)
    found = capsys.readouterr()
    assert "ar sweep 4/4" in found.out
    assert not found.err


def test_progress__of_a_file_is_none_of_a_notebook(in_notebook):
    in_notebook()
    assert Line(io.StringIO())._kind is not bar_of_notebooks
    in_notebook(is_kernel=False)
    assert Line()._kind is not bar_of_notebooks


def test_progress__is_a_callback_of_fits(tmp_path):
    import inspect

    for function in (kpms_zarr.fit, kpms_zarr.apply, kpms_zarr.scan, kpms_zarr.consensus):
        assert "callbacks" in inspect.signature(function).parameters
    assert kpms_zarr.Progress is Progress
