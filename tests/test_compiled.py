"""Compiled programs that the command line keeps: where, how many, and what is broken."""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from kpms_zarr.cli import compiled

COMMAND = """
import sys
from kpms_zarr.cli import compiled
print(compiled.keep_programs())
import jax
import jax.numpy as jnp
from jax import monitoring
hits = []
monitoring.register_event_listener(lambda name, **_: hits.append(name))
jax.jit(lambda x: sum(jnp.sin(i * x) @ jnp.cos(x) for i in range(30)))(jnp.ones((30, 30)))
print(sum("cache_hits" in name for name in hits))
"""


def run(home: Path, **environment: str) -> tuple[str, int, str]:
    """What the folder is, how many programs were there, and what was said."""
    inherited = {
        k: v for k, v in os.environ.items() if "JAX_" not in k and k[:3] not in ("TF_", "XDG")
    }
    done = subprocess.run(
        [sys.executable, "-c", COMMAND], capture_output=True, text=True, check=True,
        env=inherited | {"HOME": str(home), "JAX_PLATFORMS": "cpu"} | environment,
    )  # fmt: skip
    folder, hits = done.stdout.splitlines()
    return folder, int(hits), done.stderr


@pytest.mark.slow
def test_programs__are_kept_from_one_process_to_the_next_and_broken_ones_made_again(tmp_path):
    folder, hits, said = run(tmp_path)
    assert Path(folder).is_relative_to(tmp_path / ".cache" / "kpms_zarr")
    assert (hits, said) == (0, "")
    entries = sorted(Path(folder).glob("jit__lambda*"))
    assert entries
    _, hits, said = run(tmp_path)
    assert hits > 0
    assert said == ""
    whole = {entry: entry.read_bytes() for entry in entries}
    for entry, data in whole.items():
        entry.write_bytes(data[: len(data) // 2])
    assert run(tmp_path)[2] == ""
    for entry, data in whole.items():
        assert len(entry.read_bytes()) > 0.9 * len(data)


@pytest.mark.full
@pytest.mark.slow
def test_programs__are_not_kept_where_that_is_not_wanted_or_cannot_be(tmp_path):
    away = tmp_path / "away"
    assert run(tmp_path, XDG_CACHE_HOME=str(away))[0].startswith(str(away))
    here = tmp_path / "here"
    assert run(here, JAX_ENABLE_COMPILATION_CACHE="0")[0] == "None"
    assert run(here, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))[0] == "None"
    assert not here.exists()
    (tmp_path / "file").write_text("no folder")
    assert run(here, XDG_CACHE_HOME=str(tmp_path / "file"))[::2] == ("None", "")


def test_user_cache__follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in ((str(tmp_path / "x"), tmp_path / "x"), ("x", tmp_path / ".cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        monkeypatch.setattr(sys, "platform", "linux")
        assert compiled.user_cache() == expected
    monkeypatch.setattr(sys, "platform", "darwin")
    assert compiled.user_cache() == tmp_path / "Library" / "Caches"


def test_tidy__removes_what_is_not_whole_and_the_oldest_beyond_a_size(tmp_path):
    compiled.tidy(tmp_path)
    names = [f"{i}-cache" for i in range(6)]
    data = zlib.compress(os.urandom(1000))
    for name in names:
        (tmp_path / name).write_bytes(data)
    (tmp_path / names[0]).write_bytes(data[:500])
    (tmp_path / names[1]).write_bytes(b"")
    compiled.tidy(tmp_path)
    assert {path.name for path in tmp_path.glob("*-cache")} == set(names[2:])
    new = (tmp_path / ".checked").stat().st_mtime + 10
    for age, name in enumerate(names[2:]):
        os.utime(tmp_path / name, (new - age, new - age))
    compiled.tidy(tmp_path, most_bytes=2 * len(data))
    assert {path.name for path in tmp_path.glob("*-cache")} == set(names[2:4])


def test_keep_programs__leaves_a_process_that_has_imported_jax_alone(monkeypatch):
    import jax  # noqa: F401

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = dict(os.environ)
    assert compiled.keep_programs() is None
    assert dict(os.environ) == before
