"""That kernels, bytes and operations of a program compiled for a GPU are counted right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import kpms_zarr

SCRIPT = Path(kpms_zarr.__file__).parents[1] / "benchmarks" / "gpu_bound.py"
PROGRAM = """HloModule jit_f, is_scheduled=true

%fused_write (p.0: f32[5,4,8], p.1: s32[], p.2: f32[4,8]) -> f32[5,4,8] {
  %p.0 = f32[5,4,8]{2,1,0} parameter(0)
  %p.2 = f32[4,8]{1,0} parameter(2)
  %log.1 = f32[4,8]{1,0} log(%p.2), metadata={op_name="log"}
  %part.1 = f32[1,4,8]{2,1,0} bitcast(%log.1)
  %p.1 = s32[] parameter(1)
  %zero.1 = s32[] constant(0)
  ROOT %write.1 = f32[5,4,8]{2,1,0} dynamic-update-slice(%p.0, %part.1, %p.1, %zero.1, %zero.1)
}

%fused_dot (q.0: f32[4,4], q.1: f32[5,4,8], q.2: s32[]) -> f32[4,8] {
  %q.0 = f32[4,4]{1,0} parameter(0)
  %q.1 = f32[5,4,8]{2,1,0} parameter(1)
  %q.2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  %read.2 = f32[1,4,8]{2,1,0} dynamic-slice(%q.1, %q.2, %zero.2, %zero.2)
  %flat.2 = f32[4,8]{1,0} bitcast(%read.2)
  ROOT %dot.2 = f32[4,8]{1,0} dot(%q.0, %flat.2), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (b: (s32[], f32[5,4,8], f32[4,4])) -> (s32[], f32[5,4,8], f32[4,4]) {
  %b = (s32[], f32[5,4,8]{2,1,0}, /*index=2*/f32[4,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %rows = f32[5,4,8]{2,1,0} get-tuple-element(%b), index=1
  %matrix = f32[4,4]{1,0} get-tuple-element(%b), index=2
  %dot = f32[4,8]{1,0} fusion(%matrix, %rows, %i), kind=kCustom, calls=%fused_dot
  %write = f32[5,4,8]{2,1,0} fusion(%rows, %i, %dot), kind=kLoop, calls=%fused_write
  ROOT %next = (s32[], f32[5,4,8]{2,1,0}, f32[4,4]{1,0}) tuple(%i, %write, %matrix)
}

%condition (c: (s32[], f32[5,4,8], f32[4,4])) -> pred[] {
  %c = (s32[], f32[5,4,8]{2,1,0}, f32[4,4]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%c), index=0
  %five = s32[] constant(5)
  ROOT %is_less = pred[] compare(%j, %five), direction=LT
}

ENTRY %main (rows.1: f32[5,4,8], matrix.1: f32[4,4]) -> f32[5,4,8] {
  %rows.1 = f32[5,4,8]{2,1,0} parameter(0)
  %matrix.1 = f32[4,4]{1,0} parameter(1)
  %none = s32[] constant(0)
  %zero = s32[] copy(%none)
  %all = (s32[], f32[5,4,8]{2,1,0}, f32[4,4]{1,0}) tuple(%zero, %rows.1, %matrix.1)
  %loop = (s32[], f32[5,4,8]{2,1,0}, f32[4,4]{1,0}) while(%all), condition=%condition, body=%body TRIPS
  ROOT %result = f32[5,4,8]{2,1,0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501
KNOWN = ', backend_config={"known_trip_count":{"n":"5"}}'


@pytest.fixture(scope="module")
def gpu_bound():
    spec = importlib.util.spec_from_file_location("gpu_bound", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_bound"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_bound"]


def test_program__counts_bodies_as_often_as_they_run(gpu_bound):
    program = gpu_bound.Program(PROGRAM.replace(" TRIPS", KNOWN))
    found = {k.name: k for k in program.kernels}
    assert {name: k.launches for name, k in found.items()} == {"zero": 1, "dot": 5, "write": 5}
    assert program.waits == 0


def test_program__counts_what_kernels_move_and_compute(gpu_bound):
    found = {k.name: k for k in gpu_bound.Program(PROGRAM.replace(" TRIPS", KNOWN)).kernels}
    row = 4 * 8 * 4
    # The matrix, one row and its number in, one row out: never the whole array.
    assert found["dot"].n_bytes == 4 * 4 * 4 + row + 4 + row
    assert found["dot"].operations == 2 * 4 * 4 * 8
    assert found["write"].n_bytes == row + 4 + row
    assert found["write"].operations == 8 * 4 * 8  # a logarithm counts as eight


def test_program__waits_for_loops_of_unknown_length(gpu_bound):
    program = gpu_bound.Program(PROGRAM.replace(" TRIPS", ""))
    assert program.waits == gpu_bound.ROUNDS
    launches = {k.name: k.launches for k in program.kernels}
    assert launches["is_less"] == launches["dot"] == gpu_bound.ROUNDS


def test_kernel__takes_what_bounds_it(gpu_bound):
    kernel = gpu_bound.Kernel("a", "once", 10, n_bytes=1e6, operations=67e6)
    assert kernel.seconds(4e-6, 1e15) == pytest.approx(40e-6)
    assert kernel.seconds(4e-6, 1e11) == pytest.approx(100e-6)
    assert kernel.seconds(1e-9, 1e15) == pytest.approx(10e-6)
