"""Row functions: which form a program gets, masks of kernels, batches, devices; and the check of kernels."""

import sys
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxlib.mlir import ir
from jaxlib.triton import dialect as triton_dialect

from d3pm_jax.numerics import kernel_check, rows
from tests.lowering.programs import lower_for
from tests.numerics.row_forms import interpret, through_xla

N, K = 6, 5


@pytest.fixture(autouse=True)
def nothing_said():
    """What is said once may be said again, and what a test took away is there again."""
    yield
    kernel_check.give_up_once.cache_clear()
    kernel_check.has_backend.cache_clear()


def normalize(settings, row, numbers, tables):
    """Returns settings softmax(logits) numbers[0] tables[0], and the logit at numbers[1]."""
    scale, x = numbers
    (table,) = tables
    weights = jnp.exp(row.logits - jnp.max(row.logits, axis=-1, keepdims=True))
    p = weights / jnp.sum(weights, axis=-1, keepdims=True)
    at_x = jnp.sum(jnp.where(row.categories == x[..., None], row.logits, 0.0), axis=-1)
    return settings * p * scale[..., None] * table, at_x


def make_arguments(shape=(N,), dtype=jnp.float32):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(*shape, K)), dtype)
    numbers = [
        jnp.asarray(rng.random(shape[:1]), jnp.float32),
        jnp.asarray(rng.integers(0, K, shape), jnp.int32),
    ]
    return logits, numbers, [jnp.asarray(rng.random(K), jnp.float32)]


def apply(logits, numbers, tables):
    rows._may_be_kernel.cache_clear()
    return rows.map_rows(normalize, 2.0, logits, numbers, tables)


def read_kernels(lowered):
    """Returns loads and stores of each Triton kernel of a lowered program: name and number of operands."""
    kernels = []

    def walk(operation, visit):
        visit(operation)
        for region in operation.regions:
            for block in region.blocks:
                for child in block.operations:
                    walk(child.operation, visit)

    def read(operation):
        if operation.name != "stablehlo.custom_call":
            return
        config = ir.DictAttr(operation.attributes["mhlo.backend_config"])
        context = ir.Context()
        triton_dialect.register_dialect(context)
        context.load_all_available_dialects()
        accesses = []

        def note(operation):
            if operation.name in ("tt.load", "tt.store"):
                accesses.append((operation.name, len(operation.operands)))

        walk(ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes, context).operation, note)
        kernels.append(accesses)

    walk(lowered.compiler_ir().operation, read)
    return kernels


def lower_for_cuda(*arguments, apply=apply):
    # A function of its own each time, of which jit has nothing in its cache.
    return lower_for("cuda", jax.jit(lambda *x: apply(*x)).trace(*arguments))


def test_a_program_for_cuda_has_one_kernel_whose_accesses_are_masked():
    # 6 rows of 5 leave most of a block of 128 x 8 beyond the end: an access without a mask would go there.
    (accesses,) = read_kernels(lower_for_cuda(*make_arguments()))
    # Address, mask and, of a load, what takes the place of what is masked; of a store its value.
    assert {name for name, _ in accesses} == {"tt.load", "tt.store"}
    assert all(num_operands == 3 for _, num_operands in accesses)


def test_what_has_no_kernel_takes_the_form_of_xla(monkeypatch):
    arguments = make_arguments()
    with jax.enable_x64(True):
        assert read_kernels(lower_for_cuda(*make_arguments(dtype=jnp.float64))) == []
    exported = jax.export.export(jax.jit(apply), platforms=("cuda", "cpu"))(*arguments)
    assert "triton" not in exported.mlir_module()
    exported = jax.export.export(jax.jit(apply), platforms=("cuda",))(*arguments)
    assert "triton" not in exported.mlir_module()
    with monkeypatch.context() as patch:
        patch.setattr(rows, "LONGEST", K - 1)
        assert read_kernels(lower_for_cuda(*arguments)) == []
    with monkeypatch.context() as patch:
        patch.setattr(rows, "LARGEST_INDEX", N * K - 1)
        assert read_kernels(lower_for_cuda(*arguments)) == []
    monkeypatch.setattr(kernel_check, "ALLOWED", False)
    assert read_kernels(lower_for_cuda(*arguments)) == []


def test_the_deprecation_of_triton_is_said_of_kernels_of_users_alone():
    """JAX 0.11 and later say it wherever a kernel is lowered, and nobody can do anything about ours."""

    def double(x_ref, y_ref):
        y_ref[...] = 2 * x_ref[...]

    def with_a_kernel_of_a_user(logits, numbers, tables):
        params = triton.CompilerParams(num_warps=1)
        shape = jax.ShapeDtypeStruct((8,), jnp.float32)
        call = pl.pallas_call(double, out_shape=shape, compiler_params=params)
        return apply(logits, numbers, tables), call(jnp.pad(logits[0], (0, 3)))

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(read_kernels(lower_for_cuda(*make_arguments()))) == 1
        assert said == []
        assert len(read_kernels(lower_for_cuda(*make_arguments(), apply=with_a_kernel_of_a_user))) == 2
    is_deprecated = jax.__version_info__ >= (0, 11)
    expected = [DeprecationWarning] if is_deprecated else []
    assert [warning.category for warning in said] == expected


def test_without_triton_programs_take_the_form_of_xla(monkeypatch):
    kernel_check.has_backend.cache_clear()
    monkeypatch.delattr(jax.experimental.pallas, "triton")
    monkeypatch.setitem(sys.modules, "jax.experimental.pallas.triton", None)
    cure = "install a jax that has it, 0.12 or older, for the kernels, or set D3PM_JAX_PALLAS=0"
    with pytest.warns(UserWarning, match=f"^jax .* has no Triton for Pallas .*: XLA's form .*; {cure}$"):
        assert read_kernels(lower_for_cuda(*make_arguments())) == []
    assert read_kernels(lower_for_cuda(*make_arguments())) == []  # and says it once
    # On a card nothing is compared then.
    monkeypatch.setattr(kernel_check, "find_gpu", lambda: jax.devices("cpu")[0])
    assert read_kernels(lower_for_cuda(*make_arguments())) == []


def test_a_kernel_that_cannot_be_lowered_is_not_used(monkeypatch):
    def sort(settings, row, numbers, tables):
        return jnp.sort(row.logits, axis=-1)

    def sort_and_scale(settings, row, numbers, tables):
        return 2 * jnp.sort(row.logits, axis=-1)

    def lower(f):
        rows._may_be_kernel.cache_clear()
        logits, _, _ = make_arguments()
        return lower_for_cuda(logits, apply=lambda logits: rows.map_rows(f, None, logits, []))

    report = r"a kernel cannot be lowered, '.*sort.*': .* please report this line, with the version of jax \("
    with pytest.warns(UserWarning, match=f"{report}.*; XLA's form is used in its place"):
        lowered = lower(sort)
    assert read_kernels(lowered) == []
    assert lowered.compiler_ir().operation.verify()
    assert "stablehlo.sort" in lowered.as_text()
    assert read_kernels(lower(sort_and_scale)) == []  # for the same reason, which is not said again
    kernel_check.give_up_once.cache_clear()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RuntimeError, match=f"{report}.*; set D3PM_JAX_PALLAS=0 for all processes"):
        lower(sort)


def test_a_kernel_is_what_xla_computes_whatever_the_axes():
    logits, numbers, tables = make_arguments((2, 3))
    desired = through_xla(normalize, 2.0, logits, numbers, tables)
    for a, b in zip(interpret(normalize, 2.0, logits, numbers, tables), desired, strict=True):
        np.testing.assert_allclose(a, b, 1e-6)


@pytest.mark.parametrize("in_axes", [(0, 0, None), (None, 0, None), (0, None, 0), (None, None, 0)])
def test_batches_are_what_their_entries_are(in_axes):
    first = make_arguments()
    second = jax.tree.map(lambda x: x[::-1], first)
    # Where an axis is None, both entries have what the first one has.
    second = tuple(a if axis is None else b for a, b, axis in zip(first, second, in_axes, strict=True))
    batch = tuple(
        a if axis is None else jax.tree.map(lambda *x: jnp.stack(x), a, b)
        for a, b, axis in zip(first, second, in_axes, strict=True)
    )
    p, at_x = jax.jit(jax.vmap(apply, in_axes))(*batch)
    for i, entry in enumerate((first, second)):
        desired_p, desired_at_x = through_xla(normalize, 2.0, *entry)
        np.testing.assert_allclose(p[i], desired_p, 1e-6)
        np.testing.assert_array_equal(at_x[i], desired_at_x)


def test_derivatives_are_those_of_xla():
    logits, numbers, tables = make_arguments()

    def total(form, logits):
        p, at_x = form(normalize, 2.0, logits, numbers, tables)
        return jnp.sum(p**2) + jnp.sum(at_x**2)

    for differentiate in (jax.grad, jax.hessian):
        actual = jax.jit(differentiate(partial(total, rows.map_rows)))(logits)
        np.testing.assert_allclose(actual, jax.jit(differentiate(partial(total, through_xla)))(logits), 1e-5)


@pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, "d")])
def test_rows_that_are_spread_over_devices_stay_there(spec):
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("d",))
    logits, numbers, tables = make_arguments((4, 2))

    def spread(x, spec):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    everywhere = PartitionSpec()
    lowered = jax.jit(lambda *x: apply(*x)).lower(
        spread(logits, spec),
        [spread(numbers[0], everywhere), spread(numbers[1], spec)],
        [spread(tables[0], everywhere)],
    )
    compiled = lowered.compile()
    text = compiled.as_text() or ""
    assert text
    assert not [word for word in ("all-gather", "all-to-all", "collective") if word in text]
    assert all(x.is_equivalent_to(NamedSharding(mesh, spec), 2) for x in compiled.output_shardings)


def test_rows_vary_in_a_shard_map_as_their_arguments_do():
    mesh = Mesh(np.array(jax.devices("cpu")[:2]), ("d",))
    logits, numbers, tables = make_arguments((4, 2))
    over_rows = PartitionSpec("d")
    specs = (over_rows, [over_rows, over_rows], [PartitionSpec()])
    mapped = jax.shard_map(apply, mesh=mesh, in_specs=specs, out_specs=(over_rows, over_rows))
    actual = jax.jit(mapped)(logits, numbers, tables)
    for a, b in zip(actual, through_xla(normalize, 2.0, logits, numbers, tables), strict=True):
        np.testing.assert_allclose(a, b, 1e-6)


def test_a_row_goes_back_in_the_type_of_the_logits():
    p, at_x = jax.jit(apply)(*make_arguments(dtype=jnp.bfloat16))
    assert (p.dtype, at_x.dtype) == (jnp.bfloat16, jnp.float32)


def test_a_kernel_that_differs_or_fails_is_not_used(monkeypatch):
    monkeypatch.setattr(kernel_check, "find_gpu", lambda: jax.devices("cpu")[0])
    shapes = [jax.ShapeDtypeStruct((*kernel_check.SHAPE, K), jnp.float32)]

    def reference(logits):
        return [jnp.exp(logits), jnp.argmax(logits, axis=-1)]

    def wrong(logits):
        return [jnp.exp(logits).at[1, 3, 2].add(1e-3), jnp.argmax(logits, axis=-1)]

    def wrong_integers(logits):
        return [jnp.exp(logits), jnp.argmax(logits, axis=-1).at[1, :2].add(1)]

    def failing(logits):
        raise NotImplementedError("no such\ninstruction")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernel_check.agrees("f", reference, reference, K, shapes)
    for kernel, words in ((wrong, "differs"), (wrong_integers, "differs"), (failing, "no such instruction")):
        with pytest.warns(UserWarning, match=f"kernel f .*{words}.* K = 5: please report"):
            assert not kernel_check.agrees("f", kernel, reference, K, shapes)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(RuntimeError, match="set D3PM_JAX_PALLAS=0 for all processes"):
        kernel_check.agrees("f", wrong, reference, K, shapes)


def test_a_kernel_is_checked_before_a_program_is_lowered(monkeypatch):
    monkeypatch.setattr(kernel_check, "find_gpu", lambda: jax.devices("cpu")[0])
    # On a CPU Pallas has no kernel but in interpret mode: so it fails, and XLA's form is taken.
    with pytest.warns(UserWarning, match="the kernel normalize fails with .*nterpret"):
        assert read_kernels(lower_for_cuda(*make_arguments())) == []


def test_an_old_card_has_no_kernels(monkeypatch):
    class Old:
        compute_capability = "7.5"

    monkeypatch.setattr(kernel_check, "find_gpu", Old)
    assert not kernel_check.has_triton()
