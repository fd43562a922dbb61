from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kpms_zarr.viz.report import report

CHROMIUM = shutil.which("chromium")

_COLLECT = """<script>
window.problems = [];
window.addEventListener("error", e => problems.push(String(e.message)));
window.addEventListener("unhandledrejection", e => problems.push(String(e.reason)));
document.addEventListener("securitypolicyviolation", e => problems.push("blocked " + e.blockedURI));
for (const level of ["error", "warn"]) {
  const original = console[level];
  console[level] = (...words) => { problems.push(words.join(" ")); original(...words); };
}
</script>"""

_COUNT = """<script>
function* canvases(node) {
  for (const child of node.querySelectorAll("*")) {
    if (child.tagName === "CANVAS") yield child;
    if (child.shadowRoot) yield* canvases(child.shadowRoot);
  }
}
function n_colors(canvas) {
  if (canvas.width < 100 || canvas.height < 50) return 0; // samples of a legend
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(data.buffer)).size;
}
const timer = setInterval(() => {
  if (!window.Bokeh || !Bokeh.documents.length || !Bokeh.documents.every(d => d.is_idle)) return;
  clearInterval(timer);
  setTimeout(() => {
    const seen = {problems, loaded: performance.getEntriesByType("resource").map(e => e.name)};
    seen.sections = {};
    for (const section of document.querySelectorAll("section")) {
      seen.sections[section.getAttribute("aria-labelledby")] =
        [...canvases(section)].map(n_colors).filter(n => n > 2).length;
    }
    seen.overflow = document.documentElement.scrollWidth - window.innerWidth;
    document.documentElement.dataset.seen = JSON.stringify(seen);
  }, 1500);
}, 100);
</script>"""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=15000",
    "--window-size=1280,6000",
    "--dump-dom",
)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on PATH")
@pytest.mark.parametrize(
    ("fixture", "model", "figures"),
    [
        ("store", "m", {"traces": 4, "poses": 4}),
        ("two_stages", "two", {"traces": 6, "poses": 4, "denoised": 3}),
    ],
)
def test_report__draws_in_a_browser_with_nothing_loaded(
    request: pytest.FixtureRequest,
    fixture: str,
    model: str,
    figures: dict[str, int],
    tmp_path: Path,
) -> None:
    page = tmp_path / "report.html"
    report(request.getfixturevalue(fixture), model=model, out=page)
    text = page.read_text("utf-8").replace("<head>", "<head>" + _COLLECT, 1)
    page.write_text(_COUNT.join(text.rsplit("</body>", 1)) + "</body></html>", "utf-8")
    assert CHROMIUM
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<html[^>]* data-seen="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    seen = json.loads(html.unescape(found[1]))
    assert seen["problems"] == []
    assert seen["loaded"] == []
    assert seen["overflow"] <= 0
    drawn = {name: n for name, n in seen["sections"].items() if name not in ("syllables", "python")}
    assert drawn == {
        "ethogram": 1,
        "bouts": 1,
        "frequencies": 1,
        "durations": 1,
        "transitions": 1,
        **figures,
    }
