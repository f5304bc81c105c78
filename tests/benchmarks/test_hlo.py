"""Estimates from a program's text, written by hand as compilers write it."""

import pathlib
import sys

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import hlo  # noqa: E402

CYCLES = 'backend_config={"window_config":{"estimated_cycles":"%d"}}'
PROGRAM = f"""\
HloModule step, is_scheduled=true

%gathered (p.0: f32[64,128], p.1: s32[32]) -> f32[32,128] {{
  %p.0 = f32[64,128]{{1,0:T(8,128)}} parameter(0)
  %p.1 = s32[32]{{0}} parameter(1)
  ROOT %gather.1 = f32[32,128]{{1,0}} gather(%p.0, %p.1), offset_dims={{1}}
}}

%summed (p.2: f32[8]) -> f32[8] {{
  %p.2 = f32[8]{{0}} parameter(0)
  ROOT %add.1 = f32[8]{{0}} add(%p.2, %p.2)
}}

%less (p.6: s32[]) -> pred[] {{
  %p.6 = s32[]{{:T(128)}} parameter(0)
  %constant.3 = s32[]{{:T(128)}} constant(3)
  ROOT %less.2 = pred[]{{:T(512)}} compare(%p.6, %constant.3), direction=LT
}}

%inner_condition (s.0: (s32[], f32[8])) -> pred[] {{
  %s.0 = (s32[]{{:T(128)}}, f32[8]{{0}}) parameter(0)
  %i.0 = s32[]{{:T(128)}} get-tuple-element(%s.0), index=0
  ROOT %less.0 = pred[]{{:T(512)}} fusion(%i.0), kind=kLoop, calls=%less
}}

%inner (s.1: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %s.1 = (s32[]{{:T(128)}}, f32[8]{{0}}) parameter(0)
  %fusion.1 = f32[8]{{0:T(128)S(1)}} fusion(%s.1), kind=kLoop, \
calls=%summed, {CYCLES % 100}
  %fusion.2 = f32[32,128]{{1,0}} fusion(%s.1), kind=kCustom, calls=%gathered
  ROOT %tuple.1 = (s32[], f32[8]{{0}}) tuple(%s.1, %fusion.1)
}}

%outer_condition (s.2: (s32[], f32[8])) -> pred[] {{
  %s.2 = (s32[]{{:T(128)}}, f32[8]{{0}}) parameter(0)
  ROOT %less.1 = pred[]{{:T(512)}} compare(%s.2, %s.2), direction=LT
}}

%outer (s.3: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %s.3 = (s32[]{{:T(128)}}, f32[8]{{0}}) parameter(0)
  %copy.1 = f32[8]{{0}} copy(%s.3), {CYCLES % 7}
  ROOT %while.1 = (s32[]{{:T(128)}}, /*index=1*/f32[8]{{0}}) while(%s.3), \
condition=%inner_condition, body=%inner
}}

%cheap (p.4: f32[8]) -> f32[8] {{
  ROOT %p.4 = f32[8]{{0}} parameter(0)
}}

%dear (p.5: f32[8]) -> f32[8] {{
  %p.5 = f32[8]{{0}} parameter(0)
  ROOT %copy.2 = f32[8]{{0}} copy(%p.5), {CYCLES % 1000}
}}

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  %while.2 = (s32[], f32[8]{{0}}) while(%x), condition=%outer_condition, \
body=%outer, backend_config={{"known_trip_count":{{"n":"5"}}}}
  %sort.1 = f32[8]{{0}} sort(%x), dimensions={{0}}, to_apply=%outer_condition
  ROOT %either = f32[8]{{0}} conditional(%x), \
branch_computations={{%cheap, %dear}}
}}
"""


def test_cycles_are_multiplied_by_trips():
    # Five trips of the outer loop, three of the inner one in each.
    assert hlo.total_cycles(PROGRAM) == 5 * 7 + 5 * 3 * 100 + 1000
    expected = 1e3 * 2535 / 1.5e9
    assert hlo.milliseconds(PROGRAM, "v5e") == pytest.approx(expected)
    assert hlo.milliseconds(PROGRAM, "v2") is None


def test_the_dearest_comes_first():
    names = [row[3] for row in hlo.table(PROGRAM, 2)]
    assert names == ["fusion.1", "copy.2"]
    first = next(hlo.table(PROGRAM))
    assert first == (1500, 100, 15, "fusion.1", "f32[8]")


def test_what_has_no_estimate():
    assert hlo.unpriced(PROGRAM) == {"gather": 15, "sort": 1}
    assert hlo.gathered_rows(PROGRAM) == 15 * 32


def test_operations_that_a_gpu_would_start():
    # Two fusions in the inner loop, a copy in the outer one, and the sort;
    # the conditional's branch copies.
    assert hlo.kernels(PROGRAM) == 15 * 2 + 5 + 1 + 1
