"""What a compiled program moves and computes, against programs whose bytes are counted by hand."""

from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu, triton

from d3pm_jax.program.compiled import pallas, products, programs

CONDITIONAL = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(pred[], f32[64,32]{1,0})->f32[64,32]{1,0}}

%fused_product (param_0: f32[64,32], param_1: f32[32,32]) -> f32[64,32] {
  %param_0 = f32[64,32]{1,0} parameter(0)
  %param_1 = f32[32,32]{1,0} parameter(1)
  ROOT %dot.1 = f32[64,32]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%region_1 (arguments.1: (f32[64,32], f32[32,32])) -> f32[64,32] {
  %arguments.1 = (f32[64,32]{1,0}, f32[32,32]{1,0}) parameter(0)
  %x.1 = f32[64,32]{1,0} get-tuple-element(%arguments.1), index=0
  %w.1 = f32[32,32]{1,0} get-tuple-element(%arguments.1), index=1
  %product.1 = f32[64,32]{1,0} fusion(%x.1, %w.1), kind=kCustom, calls=%fused_product, \
metadata={op_name="a (b)"}
  ROOT %copy.1 = f32[64,32]{0,1} copy(%product.1)
}

%region_0 (arguments.2: (f32[64,32])) -> f32[64,32] {
  %arguments.2 = (f32[64,32]{1,0}) parameter(0)
  %x.2 = f32[64,32]{1,0} get-tuple-element(%arguments.2), index=0
  %copy.0 = f32[64,32]{1,0} copy(%x.2)
  %copy.1 = f32[64,32]{1,0} copy(%copy.0)
  ROOT %copy.2 = f32[64,32]{1,0} copy(%copy.1)
}

ENTRY %main.1 (p.1: pred[], x.3: f32[64,32], w.3: f32[32,32]) -> f32[64,32] {
  %p.1 = pred[] parameter(0)
  %x.3 = f32[64,32]{1,0} parameter(1), sharding={replicated}
  %w.3 = f32[32,32]{1,0} parameter(2)
  %both.1 = (f32[64,32]{1,0}, f32[32,32]{1,0}) tuple(%x.3, %w.3)
  %single.1 = (f32[64,32]{1,0}) tuple(%x.3)
  ROOT %cond.1 = f32[64,32]{1,0} conditional(%p.1, %both.1, %single.1), TAKEN
}
"""
X = 4 * 64 * 32  # bytes
W = 4 * 32 * 32


@pytest.mark.parametrize(
    "branches",
    ["true_computation=%region_1, false_computation=%region_0", "branch_computations={%region_0, %region_1}"],
)
def test_a_conditional_runs_the_branch_that_moves_less(branches):
    text = CONDITIONAL.replace("TAKEN", branches)
    program = programs.count_program(text)
    assert program.bytes == (X + W + X) + (X + X)
    assert [kernel.work for kernel in program.kernels] == ["matrix products", "copies"]
    assert program.kernels[0].origin == "a (b)"
    assert program.flops() == {"tf32": 2 * 64 * 32 * 32}

    # The product takes as long as its operations, and the copy as long as its bytes.
    assert program.seconds(1e9, {"tf32": 1e6}) == pytest.approx(2 * 64 * 32 * 32 / 1e6 + 2 * X / 1e9)
    exact = text.replace(
        "rhs_contracting_dims={0}", "rhs_contracting_dims={0}, operand_precision={highest,highest}"
    )
    assert programs.count_program(exact).flops() == {"f32": 2 * 64 * 32 * 32}


WHILE = """\
HloModule jit_g, is_scheduled=true

%sum (a.1: f32[], b.1: f32[]) -> f32[] {
  %a.1 = f32[] parameter(0)
  %b.1 = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a.1, %b.1)
}

%fused_layer (param_0.1: f32[5,16,8], param_1.1: s32[], param_2.1: f32[16,8]) -> f32[16,8] {
  %param_0.1 = f32[5,16,8]{2,1,0} parameter(0)
  %param_1.1 = s32[] parameter(1)
  %param_2.1 = f32[16,8]{1,0} parameter(2)
  %zero.1 = s32[] constant(0)
  %slice.1 = f32[1,16,8]{2,1,0} dynamic-slice(%param_0.1, %param_1.1, %zero.1, %zero.1), \
dynamic_slice_sizes={1,16,8}
  %bitcast.1 = f32[16,8]{1,0} bitcast(%slice.1)
  ROOT %multiply.1 = f32[16,8]{1,0} multiply(%bitcast.1, %param_2.1)
}

%fused_write (param_0.2: f32[5,8], param_1.2: s32[], param_2.2: f32[16,8]) -> f32[5,8] {
  %param_0.2 = f32[5,8]{1,0} parameter(0)
  %param_1.2 = s32[] parameter(1)
  %param_2.2 = f32[16,8]{1,0} parameter(2)
  %zero.2 = f32[] constant(0)
  %start.2 = s32[] constant(0)
  %reduce.2 = f32[8]{0} reduce(%param_2.2, %zero.2), dimensions={0}, to_apply=%sum
  %bitcast.2 = f32[1,8]{1,0} bitcast(%reduce.2)
  ROOT %update.2 = f32[5,8]{1,0} dynamic-update-slice(%param_0.2, %bitcast.2, %param_1.2, %start.2)
}

%fused_next (param_0.3: s32[]) -> s32[] {
  %param_0.3 = s32[] parameter(0)
  %one.3 = s32[] constant(1)
  ROOT %add.3 = s32[] add(%param_0.3, %one.3)
}

%body (state.1: (s32[], f32[16,8], f32[5,8], f32[5,16,8])) -> (s32[], f32[16,8], f32[5,8], f32[5,16,8]) {
  %state.1 = (s32[], f32[16,8]{1,0}, f32[5,8]{1,0}, f32[5,16,8]{2,1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %h.1 = f32[16,8]{1,0} get-tuple-element(%state.1), index=1
  %sums.1 = f32[5,8]{1,0} get-tuple-element(%state.1), index=2
  %layers.1 = f32[5,16,8]{2,1,0} get-tuple-element(%state.1), index=3
  %layer.1 = f32[16,8]{1,0} fusion(%layers.1, %i.1, %h.1), kind=kLoop, calls=%fused_layer
  %write.1 = f32[5,8]{1,0} fusion(%sums.1, %i.1, %layer.1), kind=kInput, calls=%fused_write
  %next.1 = s32[] fusion(%i.1), kind=kLoop, calls=%fused_next
  ROOT %tuple.1 = (s32[], f32[16,8]{1,0}, f32[5,8]{1,0}, f32[5,16,8]{2,1,0}) \
tuple(%next.1, %layer.1, %write.1, %layers.1)
}

%condition (state.2: (s32[], f32[16,8], f32[5,8], f32[5,16,8])) -> pred[] {
  %state.2 = (s32[], f32[16,8]{1,0}, f32[5,8]{1,0}, f32[5,16,8]{2,1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%state.2), index=0
  %five.2 = s32[] constant(5)
  ROOT %less.2 = pred[] compare(%i.2, %five.2), direction=LT
}

ENTRY %main.2 (h.3: f32[16,8], sums.3: f32[5,8], layers.3: f32[5,16,8]) -> \
(s32[], f32[16,8], f32[5,8], f32[5,16,8]) {
  %h.3 = f32[16,8]{1,0} parameter(0)
  %sums.3 = f32[5,8]{1,0} parameter(1)
  %layers.3 = f32[5,16,8]{2,1,0} parameter(2)
  %zero.3 = s32[] constant(0)
  %copy.3 = s32[] copy(%zero.3)
  %tuple.3 = (s32[], f32[16,8]{1,0}, f32[5,8]{1,0}, f32[5,16,8]{2,1,0}) \
tuple(%copy.3, %h.3, %sums.3, %layers.3)
  ROOT %while.3 = (s32[], f32[16,8]{1,0}, f32[5,8]{1,0}, f32[5,16,8]{2,1,0}) \
while(%tuple.3), condition=%condition, \
body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""


def test_a_loop_runs_its_body_as_often_as_it_does():
    """It slices a layer, multiplies it, and writes its sums into their place."""
    h = 4 * 16 * 8
    layer = h + 4 + h + h  # of all layers one is read
    write = 4 + h + 4 * 8  # the sums of other layers stay where they are
    program = programs.count_program(WHILE)
    assert program.bytes == 8 + 5 * (layer + write + 8)
    assert program.launches == 1 + 5 * 3
    assert program.flops() == {"vector": 5 * (16 * 8 + 16 * 8)}
    assert program.loops_of_unknown_length == 0
    unknown = programs.count_program(WHILE.replace("known_trip_count", "unknown"))
    assert unknown.bytes == 8 + layer + write + 8
    assert unknown.loops_of_unknown_length == 1

    # Beside other kernels the write has a start and an end.
    result = "f32[5,8]{1,0}"
    before = f"%write.1 = {result} fusion(%sums.1"
    start = f"%start.1 = (({result}, s32[], f32[16,8]{{1,0}}), {result}, u32[]) fusion-start(%sums.1"
    end = f"\n  %write.1 = {result} fusion-done(%start.1)\n  %next.1 ="
    asynchronous = programs.count_program(WHILE.replace(before, start).replace("\n  %next.1 =", end))
    assert (asynchronous.bytes, asynchronous.flops()) == (program.bytes, program.flops())
    assert asynchronous.launches == program.launches


GATHER = """\
HloModule jit_h, is_scheduled=true

%fused_gather (param_0.1: f32[1000,64], param_1.1: s32[16], param_2.1: f32[16,64]) -> \
(f32[16,64], f32[16], f32[16], f32[16], f32[16], /*index=5*/bf16[16]) {
  %param_0.1 = f32[1000,64]{1,0} parameter(0)
  %param_1.1 = s32[16]{0} parameter(1)
  %param_2.1 = f32[16,64]{1,0} parameter(2)
  %bitcast.1 = s32[16,1]{1,0} bitcast(%param_1.1)
  %gather.1 = f32[16,64]{1,0} gather(%param_0.1, %bitcast.1), offset_dims={1}, collapsed_slice_dims={0}, \
start_index_map={0}, index_vector_dim=1, slice_sizes={1,64}
  %first.1 = f32[16,1]{1,0} slice(%param_2.1), slice={[0:16], [0:1]}
  %column.1 = f32[16]{0} bitcast(%first.1)
  %exp.1 = f32[16]{0} exponential(%column.1)
  %log.1 = f32[16]{0} log(%column.1)
  %tanh.1 = f32[16]{0} tanh(%column.1)
  %convert.1 = bf16[16]{0} convert(%tanh.1)
  ROOT %tuple.1 = (f32[16,64]{1,0}, f32[16]{0}, f32[16]{0}, f32[16]{0}, f32[16]{0}, /*index=5*/bf16[16]{0}) \
tuple(%gather.1, %column.1, %exp.1, %log.1, %tanh.1, /*index=5*/%convert.1)
}

ENTRY %main.3 (table.1: f32[1000,64], i.1: s32[16], x.1: f32[16,64]) -> (bf16[64], bf16[16]) {
  %table.1 = f32[1000,64]{1,0} parameter(0)
  %i.1 = s32[16]{0} parameter(1)
  %x.1 = f32[16,64]{1,0} parameter(2)
  %fusion.1 = (f32[16,64]{1,0}, f32[16]{0}, f32[16]{0}, f32[16]{0}, f32[16]{0}, /*index=5*/bf16[16]{0}) \
fusion(%table.1, %i.1, %x.1), kind=kLoop, calls=%fused_gather
  %part.1 = bf16[16]{0} get-tuple-element(%fusion.1), index=5
  %start.1 = (bf16[16]{0}, bf16[64]{0}) all-gather-start(%part.1), replica_groups={{0,1,2,3}}, dimensions={0}
  %done.1 = bf16[64]{0} all-gather-done(%start.1)
  ROOT %tuple.2 = (bf16[64]{0}, bf16[16]{0}) tuple(%done.1, %part.1)
}
"""


def test_what_is_gathered_counts_and_every_result_of_many():
    program = programs.count_program(GATHER)
    rows = 4 * 16 * 64
    column = 32 * 16  # a sector for each number that is taken
    kernel, gathering = program.kernels
    assert kernel.bytes == (rows + 4 * 16 + column) + (rows + 4 * 4 * 16 + 2 * 16)
    assert kernel.flops == {"vector": 3 * 16}
    assert gathering.bytes == 2 * 16 + 2 * 64
    assert program.collectives() == {"all-gather": 1}
    assert list(program.bytes_by_work()) == ["gathers", "collectives"]


LIBRARY = """\
HloModule jit_k, is_scheduled=true

ENTRY %main.4 (x.1: bf16[8,16,16,4], k.1: bf16[3,3,4,6]) -> bf16[8,16,16,6] {
  %x.1 = bf16[8,16,16,4]{3,2,1,0} parameter(0)
  %k.1 = bf16[3,3,4,6]{3,2,1,0} parameter(1)
  %conv.1 = (bf16[8,16,16,6]{3,2,1,0}, u8[0]{0}) custom-call(%x.1, %k.1), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_01io->b01f, custom_call_target="__cudnn$convForward"
  %y.1 = bf16[8,16,16,6]{3,2,1,0} get-tuple-element(%conv.1), index=0
  ROOT %twice.1 = bf16[8,16,16,6]{3,2,1,0} custom-call(%y.1), custom_call_target="__gpu$xla.gpu.triton", \
metadata={op_name="jit(f)/twice/pallas_call"}
}
"""


def test_calls_of_libraries_and_of_pallas():
    """Of a kernel whose operands are a part of those in its jaxpr the same part counts."""
    shown = 2 * (2 * 8 * 16 * 16 * 6)
    other = programs.CallCount(shown, 5 * shown, Counter(tf32=7))
    part = programs.CallCount(4 * shown, 6 * shown, Counter(bf16=400, f32=80))
    calls = {("twice", 0): part, ("thrice", 0): other, ("twice", shown + 1): other}
    program = programs.count_program(LIBRARY, calls)
    convolution, twice = program.kernels
    assert convolution.flops == {"bf16": 2 * 8 * 16 * 16 * 6 * 3 * 3 * 4}
    assert convolution.bytes == 2 * (8 * 16 * 16 * (4 + 6) + 3 * 3 * 4 * 6)
    assert [convolution.work, twice.work] == ["convolutions", "Pallas"]
    assert twice.bytes == 1.5 * shown
    assert twice.flops == {"bf16": 100, "f32": 20}
    for name in ("vmap(twice)", "vmap(vmap(twice))"):
        text = LIBRARY.replace("twice/pallas_call", f"{name}/mpmd_map")
        (_, exact) = programs.count_program(text, {**calls, ("twice", shown): other}).kernels
        assert (exact.bytes, exact.flops) == (5 * shown, {"tf32": 7})
    assert programs.count_program(LIBRARY).kernels[1].bytes == shown


def count_by_name(jaxprs):
    return {name: count for (name, shown), count in pallas.count_calls(jaxprs).items() if not shown}


def test_a_pallas_kernel_is_counted_from_its_jaxpr():
    """It reads the logits twice, in a loop over chunks, and a table that stays in a cache."""
    rows, K, chunk = 64, 12_000, 4096

    def sum_rows(x_ref, table_ref, o_ref):
        def add_chunk(i, total):
            return total + x_ref[:, pl.ds(i * chunk, chunk)].sum(axis=1) * table_ref[0]

        total = jax.lax.fori_loop(0, 3, add_chunk, jnp.zeros(4))
        o_ref[...] = total + jnp.where(total[0] > 0, x_ref[...].sum(axis=1), 0)

    def f(x, table):
        call = pl.pallas_call(
            sum_rows,
            out_shape=jax.ShapeDtypeStruct((rows,), jnp.float32),
            grid=(rows // 4,),
            in_specs=[pl.BlockSpec((4, 16_384), lambda i: (i, 0)), pl.BlockSpec((8,), lambda i: (0,))],
            out_specs=pl.BlockSpec((4,), lambda i: (i,)),
            name="sum_rows",
        )
        return jax.lax.cond(x[0, 0] > 0, lambda: jax.jit(call)(x, table), lambda: x[:, 0])

    arguments = jax.ShapeDtypeStruct((rows, K), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.float32)
    with pallas.watch_calls() as calls:
        jaxpr = jax.make_jaxpr(f)(*arguments)
    moved = 2 * 4 * rows * K + 4 * 8 + 4 * rows  # three chunks are a little more than a row
    shown = 4 * (rows * K + 8 + rows)
    assert count_by_name([jaxpr]) == {"sum_rows": (shown, moved, {})}
    assert pallas.count_calls(calls) == pallas.count_calls([jaxpr])


def test_a_pallas_kernel_moves_the_sectors_that_its_elements_are_in():
    """By hand: of floats 64 bytes apart each costs 32 bytes, and their neighbours are in the same sectors."""
    N = 2**20
    bytes_of_a_group = {
        # Floats from one to the next, and the loads: bytes that are loaded for each float that is stored.
        (1, 1): 4,
        (2, 1): 8,
        (4, 1): 16,
        (16, 1): 32,
        (16, 2): 64,
        (16, 16): 64,
        (16, 32): 128,
    }
    for (stride, loads), loaded in bytes_of_a_group.items():

        def add_loads(x_ref, o_ref, stride=stride, loads=loads):
            group = pl.program_id(0) * 64 + jnp.arange(64)
            total = sum(triton.load(x_ref.at[group * stride + i]) for i in range(loads))
            triton.store(o_ref.at[group], total)

        call = pl.pallas_call(
            add_loads,
            out_shape=jax.ShapeDtypeStruct((N // stride,), jnp.float32),
            grid=(N // stride // 64,),
            name="add_loads",
        )
        jaxpr = jax.make_jaxpr(call)(jax.ShapeDtypeStruct((N,), jnp.float32))
        stored = N // stride
        assert count_by_name([jaxpr]) == {
            "add_loads": ((4 * stride + 4) * stored, (loaded + 4) * stored, {}),
        }


BLOCK, D = 64, 32


def attend(q_ref, k_ref, v_ref, none, o_ref):
    """A block of queries sees the keys up to its own."""
    assert none is None
    q = q_ref[...]

    def add_block(i, total):
        keys = pl.ds(i * BLOCK, BLOCK)
        return total + jnp.dot(jnp.dot(q, k_ref[keys, :].T), v_ref[keys, :])

    o_ref[...] = jax.lax.fori_loop(0, pl.program_id(1) + 1, add_block, jnp.zeros((BLOCK, D), q.dtype))


def attend_back(length, q_ref, k_ref, v_ref, none, o_ref):
    """Every block of keys, with six products; a seventh or an eighth by a number of the data."""
    q = q_ref[...]

    def add_block(i, total):
        keys = pl.ds(i * BLOCK, BLOCK)
        k = k_ref[keys, :]
        for _ in range(2):
            total = total + jnp.dot(jnp.dot(q, k.T, precision="highest"), v_ref[keys, :])
        # As often as the number of the round says, which is no constant: once.
        k = jax.lax.fori_loop(0, 2 * i, lambda _, k: jnp.dot(k, k_ref[:D, :]), k)
        return total + jnp.dot(k, v_ref[:D, :])

    total = jax.lax.fori_loop(0, length // BLOCK, add_block, jnp.zeros((BLOCK, D), q.dtype))
    multiply = partial(jnp.dot, b=k_ref[:D, :])
    total = jax.lax.cond(total[0, 0] > 0, lambda x: multiply(multiply(x)), multiply, total)
    # As long as the data says: one round.
    o_ref[...] = jax.lax.while_loop(lambda x: x[0, 0] > 0, multiply, total)


def call_attention(kernel, name, length, q, k, v):
    heads = q.shape[0]
    block = pl.BlockSpec((None, BLOCK, D), lambda head, i: (head, i, 0))
    whole = pl.BlockSpec((None, length, D), lambda head, i: (head, 0, 0))
    return pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype),
        grid=(heads, length // BLOCK),
        in_specs=[block, whole, whole, None],
        out_specs=block,
        name=name,
    )(q, k, v, None)


def test_products_of_attention_in_a_pallas_kernel():
    """By their formula; a block of keys, which all queries of a head read, moves once."""
    B, heads, L = 2, 4, 2048

    def both(q, k, v):
        forward = jax.vmap(partial(call_attention, attend, "attend", L))(q, k, v)
        backward = jax.vmap(partial(call_attention, partial(attend_back, L), "attend_back", L))(q, k, v)
        short = call_attention(attend, "attend", 128, q[0, :, :128], k[0, :, :128], v[0, :, :128])
        return forward, backward, short

    arguments = [jax.ShapeDtypeStruct((B, heads, L, D), jnp.float32)] * 3
    with pallas.watch_calls():
        jaxpr = jax.make_jaxpr(both)(*arguments)
    counts = pallas.count_calls([jaxpr])
    shown = 4 * 4 * B * heads * L * D
    short_shown = 4 * 4 * heads * 128 * D
    product = 2 * BLOCK * BLOCK * D
    blocks = L // BLOCK
    forward = 2 * product * B * heads * sum(i + 1 for i in range(blocks))
    assert counts["attend", shown] == (shown, shown, {"tf32": forward})
    assert counts["attend", short_shown].flops == {"tf32": 2 * product * heads * 3}
    assert counts["attend", 0].flops == {"tf32": forward + 2 * product * heads * 3}
    # Products with D columns are half as large, as a block is twice as long.
    square = 2 * BLOCK * D * D
    scores = 2 * product * B * heads * blocks**2
    others = scores + square * B * heads * (2 * blocks**2 + 3 * blocks)
    assert counts["attend_back", shown].flops == {"f32": scores, "tf32": others}


def test_numbers_of_a_kernel_are_those_that_xla_computes():
    """Of all pairs of small numbers, of both signs."""
    small = range(-4, 5)
    pairs = np.array([(x, y) for x in small for y in small if y], np.int32).T
    arrays_of = {
        1: [pairs[0]],
        2: pairs,
        3: [np.minimum(*pairs), pairs[0], np.maximum(*pairs)],
    }
    num_operands = dict.fromkeys(("neg", "sign", "not"), 1) | {"clamp": 3}
    for name in products.NUMBERS.keys() - {"select_n", "convert_element_type"}:
        arrays = arrays_of[num_operands.get(name, 2)]
        expected = getattr(jax.lax, f"{name}_p").bind(*map(jnp.asarray, arrays))
        np.testing.assert_array_equal(products.NUMBERS[name](*arrays), expected, err_msg=name)
    which, cases = pairs[0] > 0, (pairs[0], pairs[1])
    expected = jax.lax.select_n(jnp.asarray(which), *cases)
    np.testing.assert_array_equal(products.NUMBERS["select_n"](which, *cases), expected)


def test_products_of_a_kernel_for_mosaic():
    """Of three groups of threads two multiply, as often as their place says: at one place one group never."""
    M, N, length = 64, 32, 128

    def multiply(a_ref, b_ref, o_ref):
        group, tile = jax.lax.axis_index("group"), jax.lax.axis_index("tile")

        def in_scope(a, b, total):
            def add(step):
                plgpu.wgmma(total, a.at[1], b.at[jax.lax.rem(step, 2)])
                return step + 3

            @pl.when(group < 2)
            def _():
                jax.lax.while_loop(lambda step: step < 2 * tile + group, add, jnp.int32(0))

        pl.run_scoped(
            in_scope,
            plgpu.SMEM((2, M, length), jnp.bfloat16),
            plgpu.SMEM((2, length, N), jnp.bfloat16),
            plgpu.ACC((M, N), jnp.float32),
            collective_axes="group",
        )

    a = jax.ShapeDtypeStruct((M, length), jnp.bfloat16)
    b = jax.ShapeDtypeStruct((length, N), jnp.bfloat16)
    call = plgpu.kernel(
        multiply,
        out_type=jax.ShapeDtypeStruct((M, N), jnp.float32),
        grid=(5,),
        grid_names=("tile",),
        num_threads=3,
        thread_name="group",
    )
    rounds = sum(len(range(0, 2 * tile + group, 3)) for tile in range(5) for group in range(2))
    shown = 2 * (M * length + length * N) + 4 * M * N
    counts = count_by_name([jax.make_jaxpr(jax.jit(call))(a, b)])
    assert counts == {"multiply": (shown, shown, {"bf16": rounds * 2 * M * N * length})}
