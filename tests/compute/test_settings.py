"""What is declared once of a setting, and that what was given is never overruled in silence."""

from __future__ import annotations

import pickle
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.cli.entry import parser
from kpms_zarr.cli.settings import given_settings
from kpms_zarr.compute.config import DEVICE_TILE_FRAMES, FRAMES_PER_TILE, Budget, FitConfig
from kpms_zarr.compute.memory import DeviceMemory
from kpms_zarr.compute.runs.commit import check_same
from kpms_zarr.compute.runs.plan import settle_tiles
from kpms_zarr.compute.runs.preparation import first_noise_variance, settings_of_model
from kpms_zarr.compute.runs.start_model import StartModel, with_start
from kpms_zarr.compute.settings import FLAG, Choice, NameList, settings_of
from kpms_zarr.store.errors import InputError

SETTINGS = {one.name: (one, known) for one, known in settings_of(FitConfig)}
STAGE = MappingProxyType({"stage": "full"})


def values_of(name):
    """A value that may be given, the default where there is one; and another one."""
    one, known = SETTINGS[name]
    if isinstance(known.check, Choice):
        first = one.default
        return first, next(word for word in known.check.words if word != first)
    if isinstance(known.check, NameList):
        return ("a", "b"), ("b",)
    if known.check is FLAG:
        return bool(one.default), not one.default
    if name == "from_model":
        return "m", "n"
    number = 90 if one.default is None else one.default
    return number, number + 1


def config_with(name, value):
    stage = {} if name == "stage" else {"stage": "full"}
    return FitConfig(**stage, **{name: value})


def start_with(settled, settings=(), noise_variance=None):
    """A model that was fitted with other settings."""
    return StartModel(
        "before", None, None, noise_variance, np.zeros((2, 2, 2)), np.zeros((2, 2)), {"s": 1.0},
        None, 5, "v1", "full", 1e4, False, dict(settings), settled,
    )  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_start_model__never_overrules_what_was_given(name):
    """Also where it is the default: it holds, or is refused."""
    given, other = values_of(name)
    config = config_with(name, given)
    assert name in config.given
    start = start_with({name: other})
    with pytest.raises(InputError, match=f"`{name}=`.*as in the model 'before'"):
        with_start(config, start, lambda event: None)
    said = []
    left_open = FitConfig() if name == "stage" else FitConfig(**STAGE)
    found = with_start(left_open, start, said.append)
    assert getattr(found, name) == other
    assert name not in found.given
    assert len(said) == 1
    assert getattr(with_start(config, start_with({}), said.append), name) == given


@pytest.mark.parametrize("name", SETTINGS)
def test_resume__refuses_what_was_given_and_differs(name):
    given, other = values_of(name)
    before = config_with(name, other)
    with pytest.raises(InputError, match=f"`{name}=`.*as in the fit that is resumed"):
        check_same(before, config_with(name, given))
    check_same(before, FitConfig() if name == "stage" else FitConfig(**STAGE))
    check_same(before, before)
    check_same(before, None)


def test_noise_variance__of_the_start_model_gives_way_to_one_that_was_given():
    start = start_with({}, noise_variance=np.array([3.0, 4.0]))
    assert first_noise_variance(FitConfig(noise_variance=1.0), start) == 1.0
    np.testing.assert_array_equal(first_noise_variance(FitConfig(), start), [3.0, 4.0])


@pytest.mark.parametrize("frames", [*DEVICE_TILE_FRAMES, 2048])
def test_apply__keeps_the_tiles_that_the_fit_was_given(frames):
    config = FitConfig(stage="full", tile_frames=frames)
    kept = {"use_keypoints": ("a", "b"), "fix_heading": False, "latent_dim": 2}
    kept["outlier_scale"] = None
    start = start_with(kept, {**config.to_dict(), "given": sorted(config.given)})
    start = replace(start, labels={})
    assert settings_of_model(start, []).tile_frames == frames
    open_again = replace(start, settings={**config.to_dict(), "given": []})
    assert settings_of_model(open_again, []).tile_frames == FRAMES_PER_TILE  # on a CPU
    of_before = replace(start, settings=config.to_dict())
    is_default = frames in DEVICE_TILE_FRAMES
    assert settings_of_model(of_before, []).tile_frames == (
        FRAMES_PER_TILE if is_default else frames
    )


@pytest.mark.parametrize(
    ("backend", "limit", "frames"),
    [
        ("cpu", None, DEVICE_TILE_FRAMES[0]),
        ("gpu", None, DEVICE_TILE_FRAMES[1]),
        ("gpu", 18 * 10**9, DEVICE_TILE_FRAMES[1]),  # of a card of 24 GB
        ("gpu", 24 * 10**9, DEVICE_TILE_FRAMES[2]),  # of one of 32 GB
        ("gpu", 106 * 10**9, DEVICE_TILE_FRAMES[2]),
    ],
)
def test_settle_tiles__by_kind_of_device(backend, limit, frames, monkeypatch):
    device = DeviceMemory(backend, "made up", limit, 0 if limit is None else limit // 100)
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    monkeypatch.setattr("kpms_zarr.compute.runs.plan.device_memory", lambda: (device,))
    assert settle_tiles(FitConfig()).tile_frames == frames
    assert settle_tiles(FitConfig(tile_frames=512)).tile_frames == 512


def test_given__is_what_was_given():
    assert FitConfig().given == frozenset()
    assert FitConfig("both", lags=3).given == {"stage", "lags"}
    assert FitConfig(kappa=None, latent_dim=None).given == frozenset()  # left open
    assert FitConfig(outlier_scale=None).given == {"outlier_scale"}  # a value like others
    assert replace(FitConfig(lags=3), n_states=7).given == {"lags", "n_states"}
    assert FitConfig(seed=1).resolved(kappa=3.0).given == {"seed"}
    assert pickle.loads(pickle.dumps(FitConfig(seed=0))).given == {"seed"}
    assert FitConfig() == FitConfig(seed=0)
    assert hash(FitConfig()) == hash(FitConfig(seed=0))


def test_from_store__knows_what_was_given_also_to_fits_of_before():
    config = FitConfig(seed=0, n_states=7)
    again = FitConfig.from_store(config.to_dict(), sorted(config.given))
    assert (again, again.given) == (config, config.given)
    settled = config.resolved(tile_frames=FRAMES_PER_TILE)
    assert FitConfig.from_store(settled.to_dict(), None).given == {"n_states"}


def typed(name, value):
    """A setting on the command line."""
    spelled = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [spelled if value else f"--no-{spelled[2:]}"]
    if name == "target_duration":
        return [spelled, f"{value}ms"]
    return [spelled, ",".join(value) if isinstance(value, tuple) else str(value)]


@pytest.mark.parametrize("name", SETTINGS)
def test_options__are_there_for_every_setting(name):
    for command in (["fit", "s.zarr", "--model", "m"], ["plan", "s.zarr"]):
        for value in values_of(name):
            found = given_settings(parser().parse_args([*command, *typed(name, value)]), FitConfig)
            stage = {} if name == "stage" else {"stage": "full"}
            assert FitConfig.from_dict({**stage, **found}) == config_with(name, value)
            assert list(found) == [name]
        assert given_settings(parser().parse_args(command), FitConfig) == {}


@pytest.mark.parametrize("cls", [FitConfig, Budget])
def test_documentation__names_every_setting_with_its_help(cls):
    text = " ".join(cls.__doc__.split())
    for one, known in settings_of(cls):
        assert f"{one.name} : {one.type} " in text
        assert known.help in text
    assert f"{FRAMES_PER_TILE:,} on a CPU" in FitConfig.__doc__ or cls is Budget


def test_settings__that_are_wrong_are_all_named():
    with pytest.raises(InputError) as caught:
        FitConfig(stage="x", sweeps=0, lags=True, use_keypoints=5, refine_pose=None, alpha=-1.0)
    found = [problem.where for problem in caught.value.problems]
    names = ("stage", "sweeps", "use_keypoints", "refine_pose", "lags", "alpha")
    assert found == [f"`{name}=`" for name in names]
    with pytest.raises(InputError, match="`home=`"):
        kpms_zarr.Budget(home="attic")
