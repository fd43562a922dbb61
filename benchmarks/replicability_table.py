"""One table of how far labels replicate, from tracking files to figures, by the public functions.

    python benchmarks/replicability_table.py --data FOLDER --keep RESULTS   # csv files, hours
    python benchmarks/replicability_table.py --keep RESULTS --rows 8,9,10   # simulated, an hour
    python benchmarks/replicability_table.py --reduced                      # simulated, minutes
    python benchmarks/replicability.py table ...                            # the same

Rows:

1. independent fits of one chain
2. independent ensembles, which share nothing: syllables, and families of them
3. two labellings of all sessions with the parameters of one fit, or of one ensemble
4. sessions of a fit labelled as if they were new, against the fit
5. certainties: how far they are from the share of the frames in which another labelling agrees
6. ensembles of disjoint halves of the sessions
7. a session that was left out of two independent ensembles, labelled by both
8. simulated sessions, easy: against the truth
9. simulated sessions, hard (kpms_zarr/store/study/close_pairs.py): against the truth, beside chains
   and beside labels by the true parameters
10. time

All is kept under ``--keep``, and a run that was stopped goes on. Settings of other candidates are
given as JSON: ``--fit-settings '{"merge_sweeps": 18}'`` for single fits and ensembles,
``--ensemble-settings`` for ensembles alone.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import kpms_zarr
from kpms_zarr import FitConfig
from kpms_zarr.compute.analysis.compare import Comparison
from kpms_zarr.store.model.given import write_truth
from kpms_zarr.store.study.close_pairs import START_VARIANCE, ClosePairs
from kpms_zarr.store.study.synthetic import SimulatedStudy, SyntheticStudy

sys.path.insert(0, str(Path(__file__).parent))
from replicability_runs import (
    HEAD,
    TRUTH,
    Row,
    Runs,
    equal_share,
    error_of_certainty,
    fit_step,
)

KEYPOINTS = "spine4,spine3,spine2,spine1,head,nose,right ear,left ear"
"""Of the nine mice: all but the tail."""
GENERATOR = Path(__file__).resolve().parents[2] / "shared" / "bench" / "simulate.py"
"""The generator that every comparison with the published package uses, beside the checkout."""
ROWS = tuple(range(1, 11))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Table:
    """Rows of the table, as they are made."""

    def __init__(self, options: argparse.Namespace, keep: Path) -> None:
        self.options, self.keep = options, keep
        self.sizes = sorted(int(size) for size in options.chains.split(","))
        self.targets = json.loads(options.targets)
        self.rows: list[tuple[int, Row]] = []
        self._every: Runs | None = None

    @property
    def data(self) -> Runs:
        """Store of the sessions that rows 1 to 7 are about."""
        if self._every is None:
            self._every = runs = Runs(self.keep / "data", say)
            runs.once("ingest", lambda: self._ingest(runs.store))
        return self._every

    def _ingest(self, store: Path) -> dict[str, Any]:
        options = self.options
        if options.reduced:
            write(store, SyntheticStudy(n_sessions=4, n_frames=options.frames, seed=1))
        elif options.data is None:
            raise SystemExit("rows 1 to 7 need tracking files: give their folder with --data")
        else:
            names = {name: getattr(options, name) for name in ("keypoints", "anterior",
                     "posterior")}  # fmt: skip
            given = {name: value.split(",") for name, value in names.items() if value}
            kpms_zarr.ingest(store, [options.data], fps=options.fps, **given)
        kpms_zarr.pca(store)
        return {}

    @property
    def hard(self) -> Path:
        """Folder of the sessions of row 9."""
        return self.keep / f"hard-{self.options.hard_seed}-{self.options.hard_missing:g}"

    def single(self, seed: int, duration: float, **more: Any) -> FitConfig:
        """Settings of a fit of one chain."""
        target = {"target_duration": duration} if duration else {}
        return FitConfig(
            **{**target, "seed": seed, **json.loads(self.options.fit_settings), **more}
        )

    def ensemble(self, seed: int, duration: float, **more: Any) -> FitConfig:
        """Settings of an ensemble."""
        settings = json.loads(self.options.ensemble_settings)
        return self.single(seed, duration, **{**settings, **more})

    def add(self, number: int, row: Row) -> None:
        """Take a row."""
        key = f"{number}: {row.figure}"
        wanted = self.targets.get(key, self.targets.get(str(number), ""))
        self.rows.append((number, Row(**{**row.__dict__, "target": wanted})))
        say(self.rows[-1][1].text)

    @property
    def text(self) -> str:
        """The table so far."""
        return "\n".join([HEAD, *(f"| {number}. {row.text[2:]}" for number, row in self.rows)])

    # -------------------------------------------------------------- what rows share

    def singles(self) -> list[str]:
        """Labels of the independent fits."""
        o = self.options
        return [
            self.data.fit(f"single-{i}", self.single(o.seed + i, o.target_duration))
            for i in range(o.singles)
        ]

    def ensembles(self, size: int) -> list[str]:
        """Labels of the independent ensembles of so many chains."""
        o = self.options
        found = []
        for i in range(2 * o.pairs):
            config = self.ensemble(o.seed + 1000 + i, o.target_duration)
            found += grown(self.data, f"ensemble-{i}", config, self.sizes, size)
        return found

    def pairs(self, labels: Sequence[str]) -> list[Comparison]:
        """Comparisons of disjoint pairs."""
        return [self.data.compare(labels[i : i + 2]) for i in range(0, len(labels) - 1, 2)]

    def labelled_again(self, labels: str) -> list[str]:
        """Two labellings of all sessions but the first, as new, by the parameters of a model."""
        name = labels.partition("@")[0]
        known = self.data.sessions[0]
        return [
            self.data.label_again(labels, f"{name}-again-{i}", self.options.seed + 5000 + i, known)
            for i in (1, 2)
        ]

    def models_to_label_with(self) -> Iterator[tuple[str, str]]:
        """Some fits and some ensembles, and what they are called in the table."""
        n = self.options.labelled
        yield from (("one fit", labels) for labels in self.singles()[:n])
        size = self.sizes[-1]
        yield from ((f"one ensemble of {size}", labels) for labels in self.ensembles(size)[:n])

    # -------------------------------------------------------------- rows

    def row_1(self) -> None:
        """Independent fits."""
        found = self.data.compare(self.singles())
        values = [pair.adjusted_rand_index for pair in found.pairs]
        self.add(1, Row.of("single fits", "ARI", values, [found]))

    def row_2(self) -> None:
        """Independent ensembles."""
        for size in self.sizes:
            every = self.ensembles(size)
            found, what = self.pairs(every), f"ensembles of {size}"
            values = [one.pairs[0].adjusted_rand_index for one in found]
            self.add(2, Row.of(what, "ARI", values, found))
            families = [self.data.families(labels) for labels in every]
            found = [
                self.data.compare([], labels={"a": families[i], "b": families[i + 1]})
                for i in range(0, len(every) - 1, 2)
            ]
            values = [one.pairs[0].adjusted_rand_index for one in found]
            self.add(2, Row.of(f"{what}: families", "ARI", values, found))

    def row_3(self) -> None:
        """Two labellings with fixed parameters."""
        self._of_labellings(3, "two labellings", lambda fit, one, two: (one, two))

    def row_4(self) -> None:
        """Sessions labelled as new."""
        self._of_labellings(4, "labelled as new, against the fit", lambda fit, one, two: (fit, one))

    def _of_labellings(self, number: int, what: str, which: Callable[..., Sequence[str]]) -> None:
        found: dict[str, list[Comparison]] = {}
        for name, labels in self.models_to_label_with():
            both = which(labels, *self.labelled_again(labels))
            rest = self.data.sessions[1:]
            found.setdefault(name, []).append(self.data.compare(both, sessions=rest))
        for name, some in found.items():
            values = [equal_share(one.pairs[0]) for one in some]
            self.add(number, Row.of(f"{name}: {what}", "equal frames", values, some))

    def row_5(self) -> None:
        """Certainties."""
        for labels in self.singles()[: self.options.labelled]:
            one, two = self.labelled_again(labels)
            rest = self.data.sessions[1:]
            for what, both in (
                ("labels by its parameters", (one, two)),
                ("the fit", (labels, one)),
            ):
                found = self.data.compare(both, sessions=rest)
                value = found.pairs[0].calibration_a.attrs["error"]
                what = f"one fit: {what} against an independent labelling"
                self.add(5, Row.of(what, "error of certainty", [value], [found]))
        every = self.data.compare(self.singles())
        values = [error_of_certainty(pair) for pair in every.pairs]
        self.add(5, Row.of("single fits against another", "error of certainty", values, [every]))
        for size in self.sizes:
            some = self.pairs(self.ensembles(size))
            values = [error_of_certainty(one.pairs[0]) for one in some]
            what = f"ensembles of {size} against another"
            self.add(5, Row.of(what, "error of certainty", values, some))

    def row_6(self) -> None:
        """Halves of the sessions."""
        o, size = self.options, self.sizes[-1]
        told, found, elsewhere = [], [], []
        for i in range(o.halves):
            self.ensembles(size)
            name, config = f"ensemble-{i}", self.ensemble(o.seed + 1000 + i, o.target_duration)
            labels = self.data.fit(name, config, chains=size, halves=True)
            attrs = kpms_zarr.open_labels(self.data.store, name, labels.partition("@")[2]).attrs
            told.append(float(attrs["session_half_rand_index"]))
            both = [
                self.data.join(
                    f"{name}-of-{half}",
                    [f"{name}-{half}-{k:02d}" for k in range(1, size + 1)],
                    o.target_duration or None,
                )
                for half in "ab"
            ]
            found.append(self.data.compare(both))
            sessions = sorted(self.data.sessions)
            for half, other in ((0, 1), (1, 0)):  # of the sessions that the first has not seen
                where = self.data.compare([both[half], both[other]], sessions=sessions[other::2])
                elsewhere.append(where.pairs[0].calibration_a.attrs["error"])
        what = f"ensembles of {size} chains of halves of the sessions"
        values = [one.pairs[0].adjusted_rand_index for one in found]
        self.add(6, Row.of(what, "ARI", values, found))
        self.add(6, Row(f"{what}, as `fit --halves` says", "ARI", told))
        values = [error_of_certainty(one.pairs[0]) for one in found]
        self.add(6, Row.of(what, "error of certainty", values, found))
        what += ", of the sessions that it has not seen"
        self.add(6, Row(what, "error of certainty", elsewhere))

    def row_7(self) -> None:
        """A session that is left out."""
        o, size, sessions = self.options, self.sizes[0], self.data.sessions
        outside, inside, same = [], [], []
        fitted = self.ensembles(size)
        for i in range(o.held_out):
            left_out = sessions[int((i + 0.5) * len(sessions) / o.held_out)]
            rest = [name for name in sessions if name != left_out]
            both = []
            for k in (0, 1):
                config = self.ensemble(
                    o.seed + 2000 + 2 * i + k, o.target_duration, sessions=tuple(rest)
                )
                name = f"without-{i}-{k}"
                grown(self.data, name, config, [size], size)
                both.append(self.data.apply(name, [left_out]))
            outside.append(self.data.compare(both, sessions=[left_out]))
            inside.append(self.data.compare(both, sessions=rest))
            same += [
                self.data.compare(fitted[j : j + 2], sessions=[left_out])
                for j in range(0, len(fitted) - 1, 2)
            ]
        for what, some in (
            ("the session that is left out", outside),
            ("the sessions that they are fitted to", inside),
            ("the same sessions, ensembles that are fitted to them", same),
        ):
            values = [one.pairs[0].adjusted_rand_index for one in some]
            self.add(7, Row.of(f"two ensembles of {size}: {what}", "ARI", values, some))

    def row_8(self) -> None:
        """Simulated sessions, easy."""
        o = self.options
        singles, ensembles = [], {size: [] for size in self.sizes}
        source = ""
        for seed in range(o.easy):
            runs = Runs(self.keep / f"easy-{seed}", say)
            sessions, truth, source = easy(seed, 4 if o.reduced else 10, o.frames)
            runs.once(
                "ingest", lambda runs=runs, found=sessions: ingest_arrays(runs.store, **found)
            )
            labels = runs.fit("single", self.single(o.seed + seed, o.simulated_duration))
            singles.append(runs.compare([labels], labels={TRUTH: truth}))
            config = self.ensemble(o.seed + 1000 + seed, o.simulated_duration)
            for size in self.sizes:
                labels = grown(runs, "ensemble", config, self.sizes, size)[0]
                ensembles[size].append(runs.compare([labels], labels={TRUTH: truth}))
        for what, found in (
            ("single fits", singles),
            *((f"ensembles of {size}", some) for size, some in ensembles.items()),
        ):
            values = [one.pairs[0].adjusted_rand_index for one in found]
            self.add(8, Row.of(f"easy ({source}): {what}", "ARI to the truth", values, found))

    def row_9(self) -> None:
        """Simulated sessions, hard."""
        o = self.options
        lengths = (o.frames,) * (3 if o.reduced else 6)
        study = ClosePairs(
            lengths=(*lengths, 300), seed=o.hard_seed, missing_fraction=o.hard_missing
        )
        runs = Runs(self.hard, say)
        runs.once(
            "ingest", lambda: write(runs.store, study), {"study": study.__dict__ | {"truth": 0}}
        )
        *sessions, known = study.session_names
        truth = {TRUTH: {name: study.session(i).syllable for i, name in enumerate(sessions)}}

        def against(what: str, labels: Sequence[str]) -> None:
            found = [runs.compare([one], sessions=sessions, labels=truth) for one in labels]
            values = [one.pairs[0].adjusted_rand_index for one in found]
            self.add(9, Row.of(f"hard: {what}", "ARI to the truth", values, found))

        def between(what: str, labels: Sequence[str]) -> None:
            found = runs.compare(labels, sessions=sessions)
            values = [pair.adjusted_rand_index for pair in found.pairs]
            self.add(9, Row.of(f"hard: {what}", "ARI", values, [found]))
            errors = [error_of_certainty(pair) for pair in found.pairs]
            self.add(9, Row.of(f"hard: {what}", "error of certainty", errors, [found]))

        of = {"sessions": tuple(sessions)}
        singles = [
            runs.fit(f"single-{i}", self.single(o.seed + i, o.simulated_duration, **of))
            for i in range(o.singles)
        ]
        against("single fits", singles)
        between("single fits", singles)
        every = range(o.hard_ensembles)
        for size in self.sizes:
            ensembles = []
            for i in every:
                config = self.ensemble(o.seed + 1000 + i, o.simulated_duration, **of)
                ensembles += grown(runs, f"ensemble-{i}", config, self.sizes, size)
            names = [f"ensemble-{i}-{k:02d}" for i in every for k in range(1, size + 1)]
            against(f"chains of ensembles of {size}", names)
            against(f"ensembles of {size}", ensembles)
            if len(ensembles) > 1:
                between(f"ensembles of {size}", ensembles)
        settings = oracle_settings(study)
        last = len(lengths)

        def truth_of() -> dict[str, Any]:
            write_truth(runs.store, study, model="truth", settings=settings, session=last)
            return {}

        runs.once("truth", truth_of)
        oracles = [
            runs.label_again("truth@v1", f"oracle-{i}", o.seed + 7000 + i, known) for i in (1, 2)
        ]
        against("labels by the true parameters", oracles)
        between("labels by the true parameters", oracles)

    def row_10(self) -> None:
        """Time."""
        o = self.options
        where = self.data if o.data or o.reduced else Runs(self.hard, say)
        first = {f"single fit, {where.store.parent.name}": [fit_step("single-0")]}
        for size in self.sizes:
            steps = [fit_step("ensemble-0", n) for n in self.sizes if n <= size]
            first[f"ensemble of {size}, {where.store.parent.name}"] = steps
        for what, steps in first.items():
            try:
                spent = np.sum([where.seconds(step) for step in steps], 0)
            except KeyError:
                say(f"row 10: {what} was not made")
                continue
            for figure, value in zip(("wall, s", "processor, s"), spent, strict=True):
                self.add(10, Row(what, figure, [float(value)], digits=0))


# ------------------------------------------------------------------ what is made


def grown(runs: Runs, model: str, config: FitConfig, sizes: Sequence[int], size: int) -> list[str]:
    """Labels of an ensemble of so many chains, made of the smaller ones of the same name."""
    made = [runs.fit(model, config, chains=n) for n in sizes if n <= size]
    return made[-1:]


def write(store: Path, study: SimulatedStudy) -> dict[str, Any]:
    """Ingest simulated sessions."""
    found = {name: study.session(i) for i, name in enumerate(study.session_names)}
    return ingest_arrays(
        store,
        {name: one.position for name, one in found.items()},
        {name: one.confidence for name, one in found.items()},
        study.settings.keypoints,
    )


def ingest_arrays(
    store: Path, positions: dict[str, Any], confidences: dict[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Ingest arrays of keypoints that are listed from rear to front, and find components."""
    kpms_zarr.ingest(
        store, arrays=positions, confidences=confidences, fps=30.0, keypoint_names=list(names),
        anterior=[names[-1]], posterior=[names[0]],
    )  # fmt: skip
    kpms_zarr.pca(store)
    return {}


def easy(
    seed: int, n_sessions: int, n_frames: int
) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Easy sessions, as :func:`ingest_arrays` takes them; true labels; name of the generator."""
    if GENERATOR.is_file():
        spec = importlib.util.spec_from_file_location("simulate", GENERATOR)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found, names = module.simulate(n_sessions, n_frames, seed=seed)
        pairs = (("positions", "coordinates"), ("confidences", "confidences"))
        sessions = {key: {name: one[of] for name, one in found.items()} for key, of in pairs}
        truth = {name: one["z"] for name, one in found.items()}
        return {**sessions, "names": names}, truth, "common generator"
    # Of the same kind and as easy, but not the same numbers.
    study = SyntheticStudy(n_sessions=n_sessions, n_frames=n_frames, seed=seed)
    drawn = {name: study.session(i) for i, name in enumerate(study.session_names)}
    sessions = {
        "positions": {name: one.position for name, one in drawn.items()},
        "confidences": {name: one.confidence for name, one in drawn.items()},
    }
    truth = {name: one.syllable for name, one in drawn.items()}
    return {**sessions, "names": study.settings.keypoints}, truth, "own generator"


def oracle_settings(study: ClosePairs) -> dict[str, Any]:
    """Settings with which the model of a fit is that which sessions were drawn from."""
    config = FitConfig(
        stage="full", n_states=2 * study.n_pairs, latent_dim=study.n_latent, scale="none",
        outlier_scale=None, sample_noise_variance="none", latent_start_variance=START_VARIANCE,
    )  # fmt: skip
    return {**config.to_dict(), "given": []}


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of tracking files")
    parser.add_argument("--keypoints", default=KEYPOINTS, help="of these files; '' = all")
    parser.add_argument("--anterior", default="nose")
    parser.add_argument("--posterior", default="spine4")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--keep", type=Path, help="folder for all that is made, to go on with it")
    parser.add_argument("--rows", default="", help="such as 1,2,5 (default: all that there can be)")
    parser.add_argument("--chains", default="8,16", help="sizes of ensembles")
    parser.add_argument("--singles", type=int, default=3, help="independent fits")
    parser.add_argument("--pairs", type=int, default=3, help="of ensembles that share nothing")
    parser.add_argument("--labelled", type=int, default=1, help="fits, of rows 3 to 5")
    parser.add_argument("--halves", type=int, default=3, help="ensembles, of row 6")
    parser.add_argument("--held-out", type=int, default=3, help="sessions, of row 7")
    parser.add_argument("--easy", type=int, default=3, help="studies, of row 8")
    parser.add_argument("--hard-ensembles", type=int, default=2, help="of row 9")
    parser.add_argument("--hard-seed", type=int, default=0, help="of the sessions of row 9")
    parser.add_argument("--hard-missing", type=float, default=0.6, help="share of keypoints there")
    parser.add_argument("--frames", type=int, help="of a simulated session (default: 5000)")
    parser.add_argument("--target-duration", type=float, default=400.0, help="ms; 0 = none")
    parser.add_argument("--simulated-duration", type=float, default=0.0, help="of rows 8 and 9")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--fit-settings", default="{}", metavar="JSON")
    parser.add_argument("--ensemble-settings", default="{}", metavar="JSON")
    parser.add_argument(
        "--targets", default="{}", metavar="JSON", help='by row: {"2: ARI": "> 0.8"}'
    )
    parser.add_argument("--reduced", action="store_true", help="all of it small, simulated")
    options = parser.parse_args(arguments)
    if options.reduced:
        options.chains, options.singles, options.pairs, options.easy = "4", 2, 1, 1
        options.halves, options.held_out, options.hard_ensembles = 1, 1, 1
        options.target_duration = 300.0
    options.frames = options.frames or (1500 if options.reduced else 5000)
    options.halves = min(options.halves, 2 * options.pairs)
    return options


def main(arguments: Sequence[str] | None = None) -> list[tuple[int, Row]]:
    """Make the table; returns its rows."""
    options = parsed(arguments)
    which = [int(number) for number in options.rows.split(",") if number]
    if not which:
        has_data = options.reduced or options.data is not None
        which = [number for number in ROWS if has_data or number > 7]
    with tempfile.TemporaryDirectory() as scratch:
        keep = options.keep or Path(scratch)
        table = Table(options, keep)
        for number in which:
            getattr(table, f"row_{number}")()
        print(table.text)
        (keep / "table.md").write_text(table.text + "\n")
    return table.rows


if __name__ == "__main__":
    main()
