"""Fits, labellings and comparisons of one store, each made once; for replicability_table.py."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr.compute.analysis.compare import Comparison
from kpms_zarr.compute.analysis.pairs import PairAgreement
from kpms_zarr.store.model.given import write_reseeded


class Runs:
    """Steps in one store; what a step found is kept beside it, so that it is made once.

    Parameters
    ----------
    folder : Path
        That holds ``study.zarr``, and ``steps.json`` with what was found.
    say : callable
        Is told of each step when it ends.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.store, self._file, self._say = folder / "study.zarr", folder / "steps.json", say
        self._known: dict[str, Any] = {}
        if self._file.exists():
            self._known = json.loads(self._file.read_text())

    def once(
        self, step: str, go: Callable[[], dict[str, Any]], asked: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make a step, or take what it found before; ``asked``: what it depends on."""
        wanted = json.loads(json.dumps(asked or {}))
        known = self._known.setdefault(step, {"asked": wanted, "wall": 0.0, "processor": 0.0})
        if known["asked"] != wanted:
            raise SystemExit(
                f"{self._file}: {step} was made with {known['asked']}, not {wanted}: give another "
                "folder with --keep"
            )
        if "found" not in known:
            wall, processor = time.perf_counter(), time.process_time()
            try:
                known["found"] = go()
            finally:  # what was stopped counts as well
                known["wall"] += time.perf_counter() - wall
                known["processor"] += time.process_time() - processor
                self._write()
            self._say(f"{self.store.parent.name}: {step}, {known['wall']:.0f} s")
        found: dict[str, Any] = known["found"]
        return found

    def seconds(self, step: str) -> tuple[float, float]:
        """Wall time of a step, and time of all processors."""
        return self._known[step]["wall"], self._known[step]["processor"]

    def _write(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(self._known, indent=1))
        new.replace(self._file)

    # -------------------------------------------------------------- steps

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions."""
        return [session.name for session in kpms_zarr.info(self.store).sessions]

    def fit(
        self, model: str, config: kpms_zarr.FitConfig, *, chains: int = 1, halves: bool = False
    ) -> str:
        """Fit a model; a fit or an ensemble that was stopped, or has fewer chains, goes on.

        Returns
        -------
        str
            ``NAME@VERSION`` of its labels.
        """

        def go() -> dict[str, Any]:
            def run(resume: bool) -> str:
                return kpms_zarr.fit(
                    self.store, model=model, config=config, chains=chains, halves=halves,
                    resume=resume,
                ).version  # fmt: skip

            try:
                return {"version": run(False)}
            except kpms_zarr.InputError as error:
                if "resume" not in str(error):
                    raise
            return {"version": run(True)}

        asked = {name: value for name, value in config.to_dict().items() if name in config.given}
        return f"{model}@{self.once(fit_step(model, chains, halves), go, asked)['version']}"

    def join(self, name: str, models: Sequence[str], target_duration: float | None) -> str:
        """Make the consensus of some models, of all sessions."""

        def go() -> dict[str, Any]:
            made = kpms_zarr.consensus(
                self.store, models=models, model=name, sessions=self.sessions,
                target_duration=target_duration, overwrite=True,
            )  # fmt: skip
            return {"version": made.version}

        return f"{name}@{self.once(f'consensus {name}', go, {'models': models})['version']}"

    def apply(self, model: str, sessions: Sequence[str]) -> str:
        """Label sessions with a model; returns ``NAME@VERSION`` of the labels."""

        def go() -> dict[str, Any]:
            done = kpms_zarr.apply(self.store, model=model, sessions=sessions, check=False)
            return {"version": done.version, "settled": done.settled}

        return f"{model}@{self.once(f'apply {model}', go, {'sessions': sessions})['version']}"

    def label_again(self, labels: str, name: str, seed: int, known: str) -> str:
        """Label all sessions but one as new, with the parameters of a model and another seed.

        Parameters
        ----------
        labels : str
            ``NAME@VERSION`` of the model.
        name : str
            Of its copy.
        known : str
            The session that is left out.
        """

        def go() -> dict[str, Any]:
            write_reseeded(self.store, model=labels, name=name, seed=seed, session=known)
            return {}

        self.once(f"copy {name}", go, {"model": labels, "seed": seed})
        return self.apply(name, [session for session in self.sessions if session != known])

    # -------------------------------------------------------------- comparisons

    def compare(
        self,
        models: Sequence[str],
        sessions: Sequence[str] | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> Comparison:
        """Compare labels, each two of them."""
        return kpms_zarr.compare(self.store, models=models, sessions=sessions, labels=labels)

    def families(self, model: str) -> dict[str, np.ndarray]:
        """Families of the syllables of a model: session -> (frame,)."""
        name, _, version = model.partition("@")
        labels = kpms_zarr.open_labels(self.store, name, version or None)
        family = np.append(labels["family"].values, -1)
        return {
            str(session): family[labels["syllable"][row, : int(n)].values]
            for row, (session, n) in enumerate(
                zip(labels["session"].values, labels["n_frames"].values, strict=True)
            )
        }


def fit_step(model: str, chains: int = 1, halves: bool = False) -> str:
    """Name of the step that fits a model."""
    if chains == 1:
        return f"fit {model}"
    return f"fit {model} of {chains} chains{' and of halves' if halves else ''}"


def equal_share(pair: PairAgreement) -> float:
    """Share of the frames with the same number of label."""
    table = pair.confusion
    same = table["syllable_a"].values[:, None] == table["syllable_b"].values[None]
    return float(table.values[same].sum() / pair.n_frames)


def error_of_certainty(pair: PairAgreement) -> float:
    """Expected calibration error of the certainties of both, each against the other."""
    errors = [one.attrs["error"] for one in (pair.calibration_a, pair.calibration_b)]
    return float(np.nanmean(errors))


# ------------------------------------------------------------------ the table


@dataclass(frozen=True)
class Row:
    """Row of the table.

    Attributes
    ----------
    what : str
    figure : str
        What the values are.
    values : sequence of float
        One for each pair.
    effective, used, bout : float
        Means over all labellings; NaN = does not apply.
    target : str
    digits : int
    """

    what: str
    figure: str
    values: Sequence[float]
    effective: float = float("nan")
    used: float = float("nan")
    bout: float = float("nan")
    target: str = ""
    digits: int = 3

    @classmethod
    def of(
        cls, what: str, figure: str, values: Sequence[float], compared: Sequence[Comparison]
    ) -> "Row":
        """Row with the number and length of the syllables of what was compared, but the truth."""
        every = [one.models.sel(model=[m for m in one.models["model"].values if m != TRUTH])
                 for one in compared]  # fmt: skip
        means = [
            float(np.mean(np.concatenate([one[name].values for one in every])))
            for name in ("effective_number", "n_used", "median_duration")
        ]
        return cls(what, figure, values, *means)

    @property
    def text(self) -> str:
        """Line of a table in Markdown."""
        found = np.asarray(self.values, float)
        d = self.digits
        shown = "" if not len(found) else f"{found.mean():.{d}f}"
        if len(found) > 1:
            shown += f" ({found.min():.{d}f}-{found.max():.{d}f})"

        def number(value: float, digits: int) -> str:
            return "" if np.isnan(value) else f"{value:.{digits}f}"

        return (
            f"| {self.what} | {self.figure} | {self.target} | {len(found)} | {shown} "
            f"| {number(self.effective, 1)} | {number(self.used, 1)} | {number(self.bout, 0)} |"
        )


TRUTH = "truth"
HEAD = (
    "| what | figure | target | pairs | mean (lowest-highest) | effective | used | bout, ms |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)
