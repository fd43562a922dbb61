"""The application around the pages: choices, links, tokens, empty states."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request

import panel as pn
import pytest

from helpers.browser import MAIN, SIZES, Server, Window, chromium
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.explore import app, parts, server
from kpms_zarr.viz.explore.app import PAGES, page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study

# Figures that are shown, and those with a button for downloads.
DOWNLOADS = """() => {
  const views = [...Bokeh.index.query((view) => view.model.type === "Figure")];
  const has = (view) => view.shadow_el.querySelector("button.kpms-download") !== null;
  return [views.length, views.filter(has).length];
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as one:
        yield one


# ------------------------------------------------------------------ choices


def test_state__begins_with_what_there_is(store):
    state = State(Study(store))
    assert (state.model, state.session) == ("m", "session_000")
    session = access.sessions(store)[0]
    assert state.span == (0.0, session.n_frames / session.fps)


@pytest.mark.parametrize(
    ("given", "name", "wanted"),
    [
        ({"model": "nobody"}, "model", "m"),
        ({"session": "nobody"}, "session", "session_000"),
        ({"session": "session_001"}, "session", "session_001"),
        ({"syllable": 9999}, "syllable", -1),
        ({"syllable": 3}, "syllable", 3),
        ({"keypoint": "tail"}, "keypoint", ""),
        ({"start": 1e6, "stop": 1e6 + 1}, "span", None),
        ({"start": 3.0, "stop": 5.0}, "span", (3.0, 5.0)),
        ({"start": 5.0, "stop": 3.0}, "span", None),
    ],
)
def test_state__mends_what_a_link_gets_wrong(store, given, name, wanted):
    state = State(Study(store), **given)
    found = getattr(state, name)
    assert found == (State(Study(store)).span if wanted is None else wanted)


def test_state__another_session_is_shown_whole(store):
    state = State(Study(store), start=3.0, stop=5.0)
    state.show("session_001")
    session = access.sessions(store)[1]
    assert state.span == (0.0, session.n_frames / session.fps)


def test_state__notices_a_new_model(fresh, helpers):
    state = State(Study(fresh))
    assert (state.model, state.has_model, state.news) == ("", False, 0)
    state.refresh()
    assert state.news == 0
    helpers.publish(fresh, helpers.truth())
    state.refresh()
    assert (state.model, state.has_model, state.news) == ("m", True, 1)


def test_study__keeps_versions_open_and_sees_a_new_one(fresh, helpers):
    helpers.publish(fresh, helpers.truth())
    study = Study(fresh)
    before = study.opened("m").labels
    assert study.opened("m").labels is before
    helpers.publish(fresh, helpers.truth())
    study.refresh()
    assert study.opened("m").labels is not before
    assert study.version("m") == "v2"


# ------------------------------------------------------------------ words


def test_guarded__tells_errors_in_plain_words():
    def fails():
        raise InputError(expected="a <b>model</b>", found="none", where="here", fix="fit one")

    shown = parts.guarded(fails)().object
    assert "fit one" in shown
    assert "&lt;b&gt;" in shown
    assert "ZeroDivisionError" in parts.guarded(lambda: 1 / 0)().object


@pytest.mark.parametrize("name", PAGES)
def test_pages__without_a_model_say_what_to_run(fresh, name, monkeypatch):
    """No page fails on a store that has tracking only."""
    caught = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    page_module(name).page(State(Study(fresh))).get_root()
    assert not caught


@pytest.mark.parametrize("name", PAGES)
def test_pages__of_a_store_without_sessions(tmp_path, name, monkeypatch):
    caught = []
    monkeypatch.setattr(parts._LOG, "exception", lambda *a: caught.append(sys.exc_info()[1]))
    access.create(tmp_path / "empty.zarr")
    page_module(name).page(State(Study(tmp_path / "empty.zarr"))).get_root()
    assert not caught


# ------------------------------------------------------------------ serving


def test_explore__names_what_cannot_be_served(store, tmp_path):
    with pytest.raises(InputError, match="no Zarr group"):
        server.explore(tmp_path / "nothing.zarr")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="port="):
            server.explore(store, port=port)
    with pytest.raises(InputError, match="address="):
        server.explore(store, address="192.0.2.1")


@pytest.mark.full
@pytest.mark.slow
def test_server__listens_on_this_machine_only(served):
    port = int(served.link.split(":")[2].split("/")[0])
    host = socket.gethostbyname(socket.gethostname())
    with urllib.request.urlopen(served.link) as answer:
        assert answer.status == 200
    if not host.startswith("127."):
        with pytest.raises(OSError), socket.create_connection((host, port), timeout=2):
            pass


@pytest.mark.slow
def test_token__is_asked_for_elsewhere_and_ctrl_c_ends_the_server(store, browser):
    shared = Server(store, "--address", "0.0.0.0")
    try:
        assert "?token=" in shared.link
        port = shared.link.split(":")[2].split("/")[0]
        window = Window(browser)
        page = window.open(f"http://127.0.0.1:{port}/")
        assert page.get_by_text("token").count() == 1
        assert page.get_by_label("Session", exact=True).count() == 0
        page = window.open(f"http://127.0.0.1:{port}/?{shared.link.split('?')[1]}")
        assert page.get_by_label("Session", exact=True).count() == 1
        window.close()
        shared.process.send_signal(signal.SIGINT)
        assert shared.process.wait(20) == 0
    finally:
        shared.stop()


@pytest.mark.slow
def test_link__holds_the_choices(served, browser):
    window = Window(browser)
    page = window.open(served.url(page="transitions", session="session_001", syllable=3))
    assert page.get_by_label("Session", exact=True).input_value() == "session_001"
    assert page.get_by_label("Syllable", exact=True).input_value() == "3"
    page.get_by_label("Session", exact=True).fill("002")
    page.keyboard.press("Enter")
    page.wait_for_function("location.search.includes('session_002')")
    assert "model=m" in page.url  # named, though nobody chose it: later there may be others
    page.reload()
    window.settle()
    assert page.get_by_label("Session", exact=True).input_value() == "session_002"
    assert window.problems == []
    window.close()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_pages__draw_without_complaint(served, browser, name, size):
    window = Window(browser, size=size)
    page = window.open(served.url(page=name))
    window.settle(1500)
    assert window.unnamed() == []
    figures, buttons = page.evaluate(DOWNLOADS)
    assert figures == buttons
    page.evaluate("document.body.append(document.createElement('button'))")
    assert window.unnamed() == ["button"]  # it would be found
    page.evaluate("document.body.lastChild.remove()")
    window.picture(f"{name}_{size[0]}")
    assert window.problems == []
    assert window.foreign == []
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert not [line for line in served.log if "Traceback" in line or "ERROR" in line]
    window.close()


@pytest.mark.slow
def test_pages__are_reached_by_keyboard(served, browser):
    window = Window(browser)
    page = window.open(served.url(page="quality"))
    page.get_by_role("tab", name="Quality").focus()
    for key in ("ArrowRight", "End", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function("location.search.includes('page=transitions')")
    window.settle()
    chosen = page.locator("[role=tab][aria-selected=true]")
    assert chosen.all_inner_texts() == ["Transitions"]
    page.get_by_role("tab", name="Fit").click()
    page.wait_for_function("location.search.includes('page=fit')")
    window.settle()
    assert chosen.all_inner_texts() == ["Fit"]
    page.go_back()
    page.wait_for_function("location.search.includes('page=transitions')")
    window.close()


def test_command__wrong_store_is_one_message(tmp_path):
    command = [sys.executable, "-c", MAIN, "explore", str(tmp_path / "none.zarr")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no Zarr group" in done.stderr
    assert done.stdout == ""


def test_choices__offer_a_model_that_comes_while_they_are_shown(fresh, helpers):
    state = State(Study(fresh))
    column = app._choices(state)
    column.get_root()
    select = next(w for w in column.select(pn.widgets.Select) if w.name == "Model")
    assert select.value == ""
    helpers.publish(fresh, helpers.truth())
    state.refresh()
    assert (select.value, list(select.options)) == ("m", ["m"])
    helpers.publish(fresh, helpers.truth(), model="n")
    state.refresh()
    assert (select.value, list(select.options)) == ("m", ["m", "n"])
    select.value = "n"
    assert state.model == "n"
