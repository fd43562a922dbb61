"""Kernels, bytes and arithmetic of a sweep on an NVIDIA GPU, counted without one, and its bound.

    python benchmarks/gpu_bound.py [--frames 100000 1000000 10000000] [--segment-frames 256 128 64]

JAX compiles for a GPU that is not there when it is given a description of it: what XLA would run
on the GPU is then known to the last kernel, though not how long it takes. This compiles the tiles
of both stages at the shapes that a fit of so many frames has on a GPU, counts what the compiled
program launches (the bodies of loops as often as they run), what each kernel reads and writes, and
what it computes, and adds up

    seconds = sum over kernels of launches * max(launch, bytes / bandwidth, operations / peak)

which is a model: no GPU was measured. It needs the wheels of JAX's CUDA plugin of the version of
JAX at hand and NVIDIA's assembler (0.6 GB, kept in `--wheels`); where they are not installed and
cannot be fetched, it says so and ends.

What the figures rest on
    H100, H200   data sheets of NVIDIA, SXM: 3.35 and 4.8 TB/s, 67 TFLOP/s in float32 without the
                 tensor cores (products are asked for in the full precision of float32); the
                 descriptions given to the compiler are the limits of compute capability 9.0
    launch       4 us: XLA launches each kernel of the body of a loop from the host, 4 to 6 us are
                 measured for a launch (susun-blog.com, pegainfer 3), and 8 us for an iteration of a
                 loop of two kernels (QuantEcon/lecture-python-programming issue 440: 10 million in
                 81.6 s); 2 us is the better case, kernels gathered into CUDA graphs
    bytes        what each kernel reads and writes, as if nothing stayed in the L2 cache (50 MB)
    operations   one for each element and instruction, 8 for logarithms and the like, 2 for a
                 multiply-add; the rejection sampler of headings is taken to need ROUNDS rounds
"""

import argparse
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
N, M, LAGS, K, D, SESSIONS = 100, 4, 3, 8, 2, 10
ROUNDS = 10
"""Of loops whose number of rounds is not known to the compiler."""
SYNC = 10e-6
"""Seconds in which the host waits for the condition of such a loop, each round."""
LAUNCHES = (4e-6, 2e-6)
PEAK = 67e12
BANDWIDTH = {"H100": 3.35e12, "H200": 4.8e12}
_MEMORY = {"H100": 84_942_979_072, "H200": 151_397_597_184}


# ------------------------------------------------------------------ reading a compiled program

_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
          "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all",
         "opt-barrier", "partition-id", "replica-id"}  # fmt: skip
_MOVES = {"broadcast", "reshape", "transpose", "slice", "concatenate", "pad", "iota", "copy",
          "dynamic-slice", "dynamic-update-slice", "gather", "convert", "reverse"}  # fmt: skip
_SLOW = {"exponential", "log", "sine", "cosine", "sqrt", "rsqrt", "divide", "asin", "acos",
         "atan2", "power", "tanh", "exponential-minus-one", "log-plus-one"}  # fmt: skip


@dataclass
class Instruction:
    """One instruction of a computation.

    Attributes
    ----------
    shape : str
        As written: an array, or a tuple of them.
    rest : str
        Attributes behind the operands.
    """

    name: str
    shape: str
    opcode: str
    operands: list[str]
    rest: str
    is_root: bool

    @property
    def n_bytes(self) -> int:
        """Bytes of the result."""
        return sum(size * _BYTES.get(kind, 4) for kind, size in arrays(self.shape))

    @property
    def n_elements(self) -> int:
        """Elements of the result."""
        return sum(size for _, size in arrays(self.shape))

    def called(self, attribute: str) -> str:
        """Name of a computation that it calls."""
        found = re.search(rf"{attribute}=%([\w.-]+)", self.rest)
        return found[1] if found else ""


@dataclass
class Kernel:
    """One kernel of a program.

    Attributes
    ----------
    loop : str
        Where it is launched from: what the loop does, or "once".
    launches : float
        In one call of the program.
    n_bytes, operations : float
        Of one launch.
    """

    name: str
    loop: str
    launches: float
    n_bytes: float
    operations: float

    def seconds(self, launch: float, bandwidth: float) -> float:
        """Of all launches, by the model."""
        return self.launches * max(launch, self.n_bytes / bandwidth, self.operations / PEAK)


def arrays(shape: str) -> list[tuple[str, int]]:
    """Kind and number of elements of each array of a shape."""
    return [
        (kind, math.prod(int(n) for n in dims.split(",") if n))
        for kind, dims in _ARRAY.findall(shape)
    ]


def _closing(text: str, start: int) -> int:
    """Place behind the bracket that closes the one at ``start``."""
    depth = 0
    for place in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if not depth:
            return place + 1
    return len(text)


def parsed_program(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Computations of a program by name, and the name of the one that it begins with."""
    found: dict[str, list[Instruction]] = {}
    entry = name = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%([\w.-]+) \(.*\{$", line)
        if head:
            name = head[2]
            found[name] = []
            entry = name if head[1] else entry
            continue
        given = re.match(r"\s+(ROOT )?%([\w.-]+) = ", line)
        if not given or not name:
            continue
        rest = line[given.end() :]
        end = _closing(rest, 0) if rest[0] == "(" else rest.index(" ")
        shape, rest = rest[:end], rest[end:].lstrip()
        opened = rest.index("(")
        end = _closing(rest, opened)
        operands = re.findall(r"%([\w.-]+)", rest[opened:end])
        found[name].append(
            Instruction(given[2], shape, rest[:opened], operands, rest[end:], bool(given[1]))
        )
    return found, entry


_LOOPS = {
    1: ("sums by state",),
    2: ("labels: filter", "labels: sample"),
    3: ("labels: filter", "labels: sample", "sums by state"),
    7: ("pose: eliminate", "pose: substitute", "heading: proposals", "centroid: filter",
        "centroid: sample", "noise scales", "sums by state"),
    9: ("labels: filter", "labels: sample", "pose: eliminate", "pose: substitute",
        "heading: proposals", "centroid: filter", "centroid: sample", "noise scales",
        "sums by state"),
}  # fmt: skip
"""What the loops of a program do, in the order in which they run, by their number."""


class Program:
    """Kernels that a compiled program launches.

    Parameters
    ----------
    text : str
        The optimised and scheduled program, as ``compiled.as_text()`` has it.
    """

    def __init__(self, text: str) -> None:
        self._computations, entry = parsed_program(text)
        self.kernels: list[Kernel] = []
        self.waits = 0.0
        self._walk(entry, 1.0, "once")
        loops = [name for name in dict.fromkeys(k.loop for k in self.kernels) if name != "once"]
        for name, meaning in zip(loops, _LOOPS.get(len(loops), loops), strict=True):
            for kernel in self.kernels:
                if kernel.loop == name:
                    kernel.loop = f"{meaning}{name[name.rindex(' (') :]}"

    def _walk(self, name: str, times: float, loop: str) -> None:
        by_name = {one.name: one for one in self._computations[name]}
        for one in by_name.values():
            if one.opcode in _FREE:
                continue
            if one.opcode == "while":
                known = re.search(r'"known_trip_count":\{"n":"(\d+)"', one.rest)
                trips = times * (int(known[1]) if known else ROUNDS)
                inner = f"{one.name} ({known[1] if known else '?'} rounds)"
                self._walk(one.called("body"), trips, inner)
                if not known:  # the host reads the condition back each round
                    self._walk(one.called("condition"), trips, inner)
                    self.waits += trips
            elif one.opcode in ("call", "conditional"):
                self._walk(one.called("to_apply") or one.called("calls"), times, loop)
            else:
                moved, computed = self._cost(one, by_name)
                self.kernels.append(Kernel(one.name, loop, times, moved, computed))

    def _cost(self, one: Instruction, by_name: dict[str, Instruction]) -> tuple[float, float]:
        """Bytes and operations of one launch."""
        given = [by_name[name].n_bytes if name in by_name else 0 for name in one.operands]
        inside = self._computations.get(one.called("calls"))
        if inside is None:
            return sum(given) + one.n_bytes, float(one.n_elements)
        uses: dict[str, list[tuple[Instruction, int]]] = {part.name: [] for part in inside}
        for part in inside:
            for place, operand in enumerate(part.operands):
                uses[operand].append((part, place))
        moved = 0.0
        for part in inside:
            if part.opcode == "parameter":
                moved += min(part.n_bytes, sum(_read(uses, use, part) for use in uses[part.name]))
        here = {part.name: part for part in inside}
        (root,) = (part for part in inside if part.is_root)
        results = [here[name] for name in root.operands] if root.opcode == "tuple" else [root]
        moved += sum(_written(result, here) for result in results)
        return moved, sum(_operations(part, here) for part in inside)

    def total(self, what: str) -> float:
        """Sum over all launches of "launches", "n_bytes" or "operations"."""
        return sum(
            k.launches * (1 if what == "launches" else getattr(k, what)) for k in self.kernels
        )


def _read(
    uses: dict[str, list[tuple[Instruction, int]]], use: tuple[Instruction, int], of: Instruction
) -> float:
    """Bytes that one use of a parameter of a fusion reads."""
    part, place = use
    if part.opcode in ("bitcast", "reshape"):
        return sum(_read(uses, later, of) for later in uses[part.name]) or part.n_bytes
    if part.opcode in ("dynamic-slice", "slice", "gather") and place == 0:
        return part.n_bytes
    if part.opcode == "dynamic-update-slice" and place == 0:
        return 0.0  # written in place
    return of.n_bytes


def _written(result: Instruction, here: dict[str, Instruction]) -> float:
    """Bytes that a result of a fusion takes to write."""
    while result.opcode == "bitcast":
        result = here[result.operands[0]]
    if result.opcode == "dynamic-update-slice":
        return here[result.operands[1]].n_bytes
    return result.n_bytes


def _operations(part: Instruction, here: dict[str, Instruction]) -> float:
    if part.opcode in _FREE | _MOVES:
        return 0.0
    if part.opcode == "dot":
        left = here[part.operands[0]]
        dims = [int(n) for n in _ARRAY.findall(left.shape)[0][1].split(",") if n]
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", part.rest)
        places = [int(n) for n in (contracted[1] if contracted else "").split(",") if n]
        return 2.0 * part.n_elements * math.prod(dims[place] for place in places)
    if part.opcode in ("reduce", "reduce-window"):
        return float(here[part.operands[0]].n_elements)
    return float(part.n_elements) * (8 if part.opcode in _SLOW else 1)


# ------------------------------------------------------------------ compiling, in its own process


def description(device: str) -> str:
    """Limits of a GPU of compute capability 9.0 in the words of XLA."""
    limits = {
        "threads_per_block_limit": 1024, "threads_per_warp": 32, "threads_per_core_limit": 2048,
        "shared_memory_per_block": 49_152, "shared_memory_per_core": 233_472,
        "shared_memory_per_block_optin": 232_448, "core_count": 132, "fpus_per_core": 128,
        "block_dim_limit_x": 2**31 - 1, "block_dim_limit_y": 65_535, "block_dim_limit_z": 65_535,
        "memory_bandwidth": int(BANDWIDTH[device]), "l2_cache_size": 52_428_800,
        "clock_rate_ghz": 1.98, "device_memory_size": _MEMORY[device],
        "registers_per_core_limit": 65_536, "registers_per_block_limit": 65_536,
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in limits.items()]
    lines.append("cuda_compute_capability { major: 9 }")
    return (
        f"gpu_device_info {{ {' '.join(lines)} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } '
        "runtime_version { major: 12 minor: 8 patch: 0 } "
        f'device_description_str: "NVIDIA {device}"'
    )


_FEW = 24
"""Segments of a tile that stands for a wider one; no table has a first dimension of that size."""


def compile_tiles(options: argparse.Namespace) -> None:
    """Compile the tiles that are asked for, one line of JSON each."""
    import jax
    import numpy as np
    from jax.experimental import topologies

    from kpms_zarr.compute.runs.budget import TileSizes, synthetic_call, synthetic_tables
    from kpms_zarr.compute.sampler.segments import TileShape

    topology = topologies.get_topology_desc(
        platform="cuda", target_config=description(options.device), topology="1x1x1"
    )
    on_gpu = jax.sharding.SingleDeviceSharding(topology.devices[0])
    if options.unroll > 1:
        jax.lax.scan = partial(jax.lax.scan, unroll=options.unroll)
    for stage, shape in (asked.split(":") for asked in options.compile):
        n_segments, n_frames = (int(n) for n in shape.split("x"))
        few = TileShape(_FEW, n_frames)  # shapes are enough: no data of that size is made
        sizes = TileSizes(few, N, M, LAGS, K if stage == "full" else 0, D, "float32")

        def described(a: Any, n_segments: int = n_segments) -> jax.ShapeDtypeStruct:
            values = np.asarray(a)
            first = [n_segments if n == _FEW else n for n in values.shape[:1]]
            shape = (*first, *values.shape[1:])
            return jax.ShapeDtypeStruct(shape, values.dtype, sharding=on_gpu)

        programs, memory, texts = [], [], []
        for call in (synthetic_call(sizes, synthetic_tables(sizes)),):  # one after the other
            arguments = jax.tree.map(described, call.arguments)
            compiled = call.function.lower(*arguments, **call.fixed).compile()
            texts.append(compiled.as_text())
            programs.append(Program(texts[-1]))
            memory.append(compiled.memory_analysis())
        if options.keep:
            (Path(options.keep) / f"{stage}-{shape}.hlo").write_text("\n".join(texts))
        line = {
            "stage": stage, "n_segments": n_segments, "n_frames": n_frames,
            "waits": sum(program.waits for program in programs),
            "has_scatter": any(" scatter(" in text for text in texts),
            "input": max(one.argument_size_in_bytes for one in memory),
            "output": max(one.output_size_in_bytes for one in memory),
            "temporary": max(one.temp_size_in_bytes for one in memory),
            "kernels": [asdict(k) for program in programs for k in program.kernels],
        }  # fmt: skip
        print(json.dumps(line), flush=True)


# ------------------------------------------------------------------ what the parent does


@dataclass
class Compiled:
    """One tile of a stage, compiled for a GPU.

    Attributes
    ----------
    waits : float
        How often the host waits for the condition of a loop.
    has_scatter : bool
        Whether anything is added up in an order that is not fixed.
    input, output, temporary : int
        Bytes, by the compiler.
    """

    stage: str
    n_segments: int
    n_frames: int
    waits: float
    has_scatter: bool
    input: int
    output: int
    temporary: int
    kernels: list[Kernel] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Frames of a tile."""
        return self.n_segments * self.n_frames

    def total(self, what: str) -> float:
        """Sum over all launches of "launches", "n_bytes" or "operations"."""
        return sum(
            k.launches * (1 if what == "launches" else getattr(k, what)) for k in self.kernels
        )

    def seconds(self, launch: float, device: str) -> float:
        """Of one tile, by the model."""
        of_kernels = sum(k.seconds(launch, BANDWIDTH[device]) for k in self.kernels)
        return of_kernels + self.waits * SYNC

    def bound(self, launch: float, device: str) -> str:
        """What most of the time goes to."""
        by = {"launches": self.waits * SYNC, "bytes": 0.0, "arithmetic": 0.0}
        for k in self.kernels:
            costs = (launch, k.n_bytes / BANDWIDTH[device], k.operations / PEAK)
            name = ("launches", "bytes", "arithmetic")[costs.index(max(costs))]
            by[name] += k.launches * max(costs)
        name = max(by, key=lambda key: by[key])
        return f"{name} {by[name] / sum(by.values()):.0%}"


def shape_of(n_frames: int, segment_frames: int, tile_frames: int | None) -> tuple[int, int, int]:
    """Segments and frames of a tile of a study of ten sessions, and tiles of a sweep."""
    from dataclasses import replace

    from kpms_zarr.compute.config import FRAMES_PER_LARGE_DEVICE_TILE, FitConfig
    from kpms_zarr.compute.runs.plan import chain_index, tile_shape
    from kpms_zarr.store.core.access import Session

    frames = tile_frames or FRAMES_PER_LARGE_DEVICE_TILE
    config = replace(FitConfig(), segment_frames=segment_frames, tile_frames=frames)
    sessions = [Session(f"s{i}", i, n_frames // SESSIONS, 30.0) for i in range(SESSIONS)]
    index = chain_index(sessions, config)
    shape = tile_shape(index, config)
    return shape.n_segments, shape.n_frames, shape.n_tiles(index)


def environment(wheels: Path) -> dict[str, str] | str:
    """Environment of a process that compiles for a GPU; a text that says why there is none."""
    from importlib import metadata

    version = metadata.version("jax")
    variables = {
        "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
    }  # fmt: skip
    folders = [str(ROOT)]
    if not importlib.util.find_spec("jax_cuda12_plugin"):
        wanted = [f"jax-cuda12-plugin=={version}", f"jax-cuda12-pjrt=={version}",
                  "nvidia-cuda-nvcc-cu12<12.10"]  # fmt: skip
        place = wheels / f"jax-{version}-py{sys.version_info[0]}{sys.version_info[1]}"
        problem = fetch(wanted, place)
        if problem:
            return problem
        folders.append(str(place))
        variables["PATH"] = os.pathsep.join(
            [str(place / "nvidia" / "cuda_nvcc" / "bin"), os.environ.get("PATH", "")]
        )
    if "PYTHONPATH" in os.environ:
        folders.append(os.environ["PYTHONPATH"])
    return os.environ | variables | {"PYTHONPATH": os.pathsep.join(folders)}


def fetch(wanted: list[str], place: Path) -> str:
    """Put wheels into a folder unless it is there already; returns why that failed, if it did."""
    if (place / ".complete").exists():
        return ""
    print(f"fetching {', '.join(wanted)} into {place} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            venv.create(folder, with_pip=True)
            pip = [str(Path(folder) / "bin" / "python"), "-I", "-m", "pip", "install", "-qq",
                   "--only-binary=:all:", "--no-deps", "--no-compile", "--upgrade",
                   "--timeout", "20", "--retries", "1", "--target", str(place)]  # fmt: skip
            done = subprocess.run([*pip, *wanted], capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{type(error).__name__}: {error}"[:300]
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return (lines or [f"pip ended with code {done.returncode}"])[-1][:300]
    (place / ".complete").touch()
    return ""


def compiled(asked: list[str], options: argparse.Namespace) -> Iterator[Compiled]:
    """Compile tiles ("stage:SEGMENTSxFRAMES") for the GPU in a process of its own, one by one."""
    variables = environment(options.wheels)
    if isinstance(variables, str):
        raise SystemExit(
            "nothing can be compiled for a GPU here: the CUDA plugin of JAX is not installed and "
            f"could not be fetched ({variables})"
        )
    command = [sys.executable, str(Path(__file__).resolve()), "--device", options.device]
    command += [f"--keep={options.keep}"] if options.keep else []
    command += [f"--unroll={options.unroll}"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--compile", *asked], env=variables, stdout=subprocess.PIPE, stderr=errors,
            text=True,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("{"):
                continue
            found = json.loads(line)
            found["kernels"] = [Kernel(**one) for one in found["kernels"]]
            yield Compiled(**found)
        if process.wait():
            errors.seek(0)
            lines = errors.read().strip().splitlines() or ["no message"]
            print(f"\nended with code {process.returncode}: {lines[-1][:300]}", flush=True)


def loops(one: Compiled, launch: float, device: str) -> list[tuple[str, int, float, float, float]]:
    """Each loop of a tile: name, kernels a round, launches, bytes a frame, share of the time."""
    whole = one.seconds(launch, device)
    names = list(dict.fromkeys(k.loop for k in one.kernels))
    found = []
    for name in names:
        mine = [k for k in one.kernels if k.loop == name]
        seconds = sum(k.seconds(launch, BANDWIDTH[device]) for k in mine)
        found.append(
            (name, len(mine), sum(k.launches for k in mine),
             sum(k.launches * k.n_bytes for k in mine) / one.frames, seconds / whole)
        )  # fmt: skip
    return found


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000],
                        help=f"of studies of {SESSIONS} sessions")  # fmt: skip
    parser.add_argument("--segment-frames", type=int, nargs="+", default=[256, 128, 64])
    parser.add_argument("--tile-frames", type=int, nargs="+", default=[0],
                        help="0: those of a card of 32 GB or more")  # fmt: skip
    parser.add_argument("--stages", nargs="+", choices=("ar", "full"), default=["ar", "full"])
    parser.add_argument("--device", choices=sorted(BANDWIDTH), default="H200")
    parser.add_argument("--loops", action="store_true", help="also a table of the loops of a tile")
    parser.add_argument("--wheels", type=Path, help="folder of the wheels",
                        default=Path(tempfile.gettempdir()) / "kpms-zarr-gpu-wheels")  # fmt: skip
    parser.add_argument("--unroll", type=int, default=1,
                        help="steps of a scan that make one round, to try it")  # fmt: skip
    parser.add_argument("--keep", type=Path, help="folder for the compiled programs, as text")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--compile", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table, or compile."""
    options = parsed()
    if options.compile:
        compile_tiles(options)
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sys.path.insert(0, str(ROOT))
    studies = []
    for n_frames in options.frames:
        for tile_frames in options.tile_frames:
            for segment_frames in options.segment_frames:
                shape = shape_of(n_frames, segment_frames, tile_frames or None)
                studies += [(stage, n_frames, *shape) for stage in options.stages]
    asked = list(dict.fromkeys(f"{stage}:{s}x{t}" for stage, _, s, t, _ in studies))
    print(
        f"No GPU was measured: compiled for an {options.device} that is not there, {N} states, {M} "
        f"latent dims, {LAGS} lags, {K} keypoints, {D}-D, float32, {SESSIONS} sessions.\n"
    )
    launches = [f"us a frame, launch {launch * 1e6:.0f} us" for launch in LAUNCHES]
    head = ["frames", "stage", "tiles of segments x frames", "launches a sweep", "kB a frame",
            "k operations a frame", *launches, "bound by", "MB of a tile"]  # fmt: skip
    print("|", " | ".join(head), "|\n|", " | ".join("---" for _ in head), "|", flush=True)
    seen = []
    for one in compiled(asked, options):
        seen.append(one)
        for stage, n_frames, s, t, n_tiles in studies:
            if (stage, s, t) == (one.stage, one.n_segments, one.n_frames):
                print(
                    "|", " | ".join(_row(one, n_frames, n_tiles, options.device)), "|", flush=True
                )
    if any(one.has_scatter for one in seen):
        print("\nThe compiled programs add in an order that is not fixed (scatter).")
    elif seen:
        print("\nNo scatter in any compiled program: every sum has a fixed order.")
    if options.loops:
        for one in seen:
            print(f"\n{one.stage}, {one.n_segments} x {one.n_frames}\n")
            print("| loop | kernels a round | launches | bytes a frame | share |")
            print("| --- | --- | --- | --- | --- |")
            for name, n, launched, moved, share in loops(one, LAUNCHES[0], options.device):
                print(f"| {name} | {n} | {launched:,.0f} | {moved:,.0f} | {share:.0%} |")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in seen], indent=1) + "\n")


def _row(one: Compiled, n_frames: int, n_tiles: int, device: str) -> list[str]:
    times: list[Any] = [
        n_tiles * one.seconds(launch, device) / n_frames * 1e6 for launch in LAUNCHES
    ]
    return [
        f"{n_frames:,}", one.stage, f"{n_tiles} of {one.n_segments:,} x {one.n_frames}",
        f"{n_tiles * one.total('launches'):,.0f}",
        f"{one.total('n_bytes') / one.frames / 1e3:.1f}",
        f"{one.total('operations') / one.frames / 1e3:.1f}", *(f"{time:.3f}" for time in times),
        one.bound(LAUNCHES[0], device),
        f"{(one.input + one.output + one.temporary) / 1e6:,.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    main()
