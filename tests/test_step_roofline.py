"""The benchmark of where a step's time goes: what oneDNN tells, and bounds."""

import pytest
import step_roofline
from step_roofline import Limits, Primitive

TOLD = """\
onednn_verbose,v1,info,oneDNN v3.7.3 (commit N/A)
onednn_verbose,v1,primitive,exec,cpu,matmul,brg_matmul:avx10_1_512_amx,undef,\
src:bf16::blocked:ab::f0 wei:bf16::blocked:ab::f0 dst:bf16::blocked:ab::f0,\
attr-scratchpad:user,,4096x312:312x1248,{}
onednn_verbose,v1,primitive,exec,cpu,gemm_api,,undef,src_f32::blocked:ab:f0 \
wei_f32::blocked:ab:f0 dst_f32::blocked:ab:f0,,,32x312:312x312,0.25
onednn_verbose,v1,primitive,exec,cpu,inner_product,x64:gemm:jit,\
forward_training,src:f32::blocked:ab::f0 wei:f32::blocked:ba::f0,\
attr-scratchpad:user,,mb4096ic128oc312,1
onednn_verbose,v1,primitive,exec,cpu,softmax,jit:avx10_1_512,\
forward_inference,src:f32::blocked:abcd::f0 dst:f32::blocked:abcd::f0,,\
alg:softmax_accurate axis:3,32x12x128x128,3.5
other words
"""
AMX = Primitive(
    "matmul", "brg_matmul:avx10_1_512_amx", "4096x312:312x1248", "bf16"
)


def told():
    lines = (TOLD.format(2) + TOLD.format(4)).splitlines()
    return step_roofline.primitives(lines)


def test_what_onednn_tells_is_read():
    found = told()
    assert found[AMX] == [2.0, 4.0]
    assert found[Primitive("gemm_api", "", "32x312:312x312", "f32")] == [
        0.25,
        0.25,
    ]
    assert {primitive.kind for primitive in found} == {
        *("matmul", "gemm_api", "inner_product", "softmax")
    }


@pytest.mark.parametrize(
    ("sizes", "type_", "operations", "numbers"),
    [
        ("2x3:3x5", "f32", 2 * 2 * 3 * 5, 6 + 15 + 10),
        ("mb2ic3oc5", "f32", 2 * 2 * 3 * 5, 6 + 15 + 10),
        ("4x7x2x3:4x7x3x5", "bf16", 28 * 2 * 2 * 3 * 5, 28 * (6 + 15 + 10)),
        ("32x12x128x128", "f32", 0, 0),
    ],
)
def test_the_work_of_a_product(sizes, type_, operations, numbers):
    size = {"f32": 4, "bf16": 2}[type_]
    found = step_roofline.work(Primitive("matmul", "", sizes, type_))
    assert found == (operations, numbers * size)


def test_the_table_sets_time_beside_the_bound(monkeypatch):
    monkeypatch.setattr(step_roofline, "STEPS", 2)
    operations, moved = step_roofline.work(AMX)
    # The product is bound by its arithmetic here: 1 ms.
    limits = Limits(operations / 1e-3, moved / 0.5e-3)
    table = step_roofline.table({AMX: told()[AMX]}, {"wall": 0.01}, limits)
    row = table.splitlines()[2]
    assert row.endswith("| 4096x312:312x1248 | 1 | 3.0 | 1.0 | 33% |")
    assert table.splitlines()[-1].split("|")[4].strip() == "7.0"
