"""Baselines and figures of tables: against enumeration, sums by hand, and laws that are known."""

import itertools
import time

import numpy as np
import pytest

from d3pm_jax.evaluation import baselines, tables

SIZES = (2, 3, 4, 3)


def draw_rows(seed, num, sizes):
    """Draws rows of a tree: column 2 is the root, 0 and 3 follow it, and 1 follows 3."""
    rng = np.random.default_rng(seed)

    def follow(parent, size):
        law = rng.dirichlet(np.full(size, 0.3), parent.max() + 1)
        return (law[parent].cumsum(1) < rng.random((len(parent), 1))).sum(1).clip(max=size - 1)

    root = rng.integers(sizes[2], size=num)
    last = follow(root, sizes[3])
    return np.stack([follow(root, sizes[0]), follow(last, sizes[1]), root, last], axis=1)


def independent_nats(train, test, sizes):
    return baselines.histogram_nats(train, test, np.array(sizes), 0.5)


def all_rows(sizes):
    return np.array(list(itertools.product(*map(range, sizes))))


def parents_of(tree):
    return [table and table.parent for table in tree.tables]


def undirected(parents):
    return {frozenset((i, j)) for i, j in enumerate(parents) if j is not None}


@pytest.mark.parametrize("num", [1, 7, 200])
def test_laws_sum_to_one(num):
    train = draw_rows(1, num, SIZES)
    rows = all_rows(SIZES)
    for nats in (
        independent_nats(train, rows, SIZES),
        tables.tree_nats(tables.fit_tree(train, SIZES), rows),
    ):
        np.testing.assert_allclose(np.exp(-nats).sum(), 1, rtol=1e-12)


def test_independent_columns_are_counted_with_a_half_more():
    nats = independent_nats(np.array([[0, 2], [0, 1], [1, 1]]), np.array([[1, 0]]), (2, 3))
    np.testing.assert_allclose(nats, [-np.log(1.5 / 4) - np.log(0.5 / 4.5)], rtol=1e-14)


def test_a_tree_is_recovered_and_its_bound_is_near_the_entropy():
    train = draw_rows(3, 20_000, SIZES)
    tree = tables.fit_tree(train[:16_000], SIZES)
    assert undirected(parents_of(tree)) == {frozenset((0, 2)), frozenset((2, 3)), frozenset((1, 3))}
    test = train[16_000:]
    gain = independent_nats(train[:16_000], test, SIZES) - tables.tree_nats(tree, test)
    # The mutual informations of the edges, from all rows, are what the tree gains.
    information = 0.0
    for i, j in ((0, 2), (2, 3), (1, 3)):
        joint = np.zeros((SIZES[i], SIZES[j]))
        np.add.at(joint, (train[:, i], train[:, j]), 1 / len(train))
        product = joint.sum(1, keepdims=True) * joint.sum(0)
        information += (joint * np.log(np.where(joint > 0, joint / product, 1))).sum()
    np.testing.assert_allclose(gain.mean(), information, atol=4 * gain.std() / np.sqrt(len(test)))


def left_out(train, child, parent, sizes):
    """Computes the gain of a parent by counting again without each of the rows, for each weight."""
    gains = np.zeros(len(tables.WEIGHTS))
    for row in range(len(train)):
        rest = np.delete(train, row, axis=0)
        c, p = train[row, child], train[row, parent]
        q = (np.sum(rest[:, child] == c) + 0.5) / (len(rest) + sizes[child] / 2)
        both = np.sum((rest[:, child] == c) & (rest[:, parent] == p))
        of_parent = np.sum(rest[:, parent] == p)
        gains += np.log((both + tables.WEIGHTS * q) / (of_parent + tables.WEIGHTS)) - np.log(q)
    return gains


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tree_is_the_best_of_all(seed):
    """Of the 16 trees of four columns, with all roots, and all weights of each table."""
    train = draw_rows(seed, 25, SIZES)
    gains = np.zeros((4, 4))
    weights = np.zeros((4, 4))
    for child, parent in itertools.permutations(range(4), 2):
        by_weight = left_out(train, child, parent, SIZES)
        gains[child, parent] = max(by_weight.max(), 0)
        weights[child, parent] = tables.WEIGHTS[by_weight.argmax()]

    trees = {}
    for parents in itertools.product((None, 0, 1, 2, 3), repeat=4):
        edges = undirected(parents)
        is_tree = parents.count(None) == 1 and len(edges) == 3 and all(len(edge) == 2 for edge in edges)
        if is_tree and set().union(*edges) == {0, 1, 2, 3}:
            both = sum(gains[i, j] + gains[j, i] for i, j in map(tuple, edges))
            directed = sum(gains[i, j] for i, j in enumerate(parents) if j is not None)
            trees[parents] = (both, directed)
    assert len(trees) == 64  # 16 trees, each with 4 roots

    tree = tables.fit_tree(train, SIZES)
    best = max(both for both, _ in trees.values())
    of_best = [directed for both, directed in trees.values() if np.isclose(both, best)]
    # Parents that tell nothing are left out of one of the best.
    parents = parents_of(tree)
    directed = sum(gains[i, j] for i, j in enumerate(parents) if j is not None)
    np.testing.assert_allclose(directed, max(of_best), rtol=1e-12)
    assert any(
        np.isclose(trees[whole], (best, max(of_best))).all()
        and all(part in (None, parent) for part, parent in zip(parents, whole, strict=True))
        for whole in trees
    )
    for child, table in enumerate(tree.tables):
        if table is not None:
            assert table.weight == weights[child, table.parent]


def test_one_column_and_a_column_of_one_value_are_trees_too():
    train = np.array([[0], [2], [2]])
    tree = tables.fit_tree(train, (3,))
    assert parents_of(tree) == [None]
    np.testing.assert_allclose(
        tables.tree_nats(tree, train), independent_nats(train, train, (3,)), rtol=1e-14
    )
    constant = tables.fit_tree(np.array([[0, 1], [0, 0]]), (1, 2))
    np.testing.assert_allclose(
        np.exp(-tables.tree_nats(constant, np.array([[0, 0], [0, 1]]))).sum(), 1, rtol=1e-14
    )


def test_a_column_of_which_no_other_tells_something_has_no_parent():
    train = np.array(list(itertools.product(range(3), range(3), range(2))))
    assert parents_of(tables.fit_tree(train, (3, 3, 2))) == [None] * 3
    # Beside a copy of a column the third is still alone.
    train = np.append(train, train[:, :1], axis=1)
    assert sorted(parents_of(tables.fit_tree(train, (3, 3, 2, 3))), key=str)[1:] == [None] * 3


def test_association_is_that_of_tables_by_hand():
    x = draw_rows(5, 300, SIZES)
    association = tables.associate_columns(x, SIZES)
    np.testing.assert_array_equal(association, association.T)
    np.testing.assert_array_equal(np.diag(association), 1)
    a, b = 2, 3
    table = np.zeros((SIZES[a], SIZES[b]))
    np.add.at(table, (x[:, a], x[:, b]), 1)
    table = table[table.any(1)][:, table.any(0)]
    expected = table.sum(1, keepdims=True) * table.sum(0) / 300
    r, c = table.shape
    squared = ((table - expected) ** 2 / expected).sum() / 300 - (r - 1) * (c - 1) / 299
    corrected = min(r - (r - 1) ** 2 / 299, c - (c - 1) ** 2 / 299) - 1
    np.testing.assert_allclose(association[a, b], np.sqrt(max(squared, 0) / corrected), rtol=1e-12)


def test_association_is_one_of_copies_and_about_zero_of_strangers():
    rng = np.random.default_rng(0)
    x = rng.integers(40, size=(1000, 3))
    x[:, 2] = (x[:, 0] + 7) % 40
    association = tables.associate_columns(np.append(x, np.zeros((1000, 1), int), axis=1), (40, 40, 40, 1))
    np.testing.assert_allclose(association[0, 2], 1, rtol=1e-12)
    assert association[0, 1] < 0.1  # without the correction about 0.2
    np.testing.assert_array_equal(association[3, :3], 0)
    # A column of as many codes as rows says nothing.
    np.testing.assert_array_equal(
        tables.associate_columns(np.array([[0, 0], [1, 1]]), (2, 2)), [[1, 0], [0, 1]]
    )


def test_distances_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 100)
    rng = np.random.default_rng(0)
    train = rng.integers(4, size=(30, 5))
    x = np.concatenate([rng.integers(4, size=(11, 5)), train[3:5]])
    expected = [min(np.mean(row != other) for other in train) for row in x]
    distances = tables.find_distances(x, train)
    np.testing.assert_allclose(distances, expected, rtol=1e-14)
    assert distances[-2:].tolist() == [0, 0]


def test_figures_of_single_columns_and_pairs():
    nan = np.nan
    # Of the numbers up to 1, two thirds are real and one half synthetic; up to 2 all and one half.
    assert tables.ks_complement(np.array([0, 1, nan, 2]), np.array([1.0, 3.0])) == pytest.approx(0.5)
    assert np.isnan(tables.ks_complement(np.array([nan]), np.array([1.0])))
    assert tables.tv_complement(np.array([0, 0, 1, 5]), np.array([0, 7])) == pytest.approx(0.5)
    rising = np.array([[0.0, 0.0], [1.0, 1.0], [nan, 9.0], [2.0, 2.0]])
    falling = rising * [1, -1]
    assert tables.correlation_similarity(rising, falling) == pytest.approx(0)
    assert tables.correlation_similarity(rising, rising * [3, 2]) == pytest.approx(1)
    assert tables.correlation_similarity(rising, rising * [0, 1]) == 0
    assert np.isnan(tables.correlation_similarity(rising * [0, 1], rising))
    real = np.array([[0, 0], [1, 1], [1, 1], [0, 1]])
    assert tables.contingency_similarity(real, real[:3]) == pytest.approx(1 - 1 / 4)


def test_fidelity_averages_figures_and_bins_numbers_beside_categories():
    numbers = np.array([0.0, 10.0, 10.0, np.nan])
    kinds = np.array([0, 1, 1, 1])
    synthetic_numbers = np.array([0.5, 10.0, 99.0, np.nan])
    summary = tables.summarize_fidelity([numbers, kinds], [synthetic_numbers, kinds])
    # 0.5 is in the bin of 0, 99 in that of 10, and the missing numbers in their own.
    shapes = (1 - 1 / 3, 1.0)
    assert summary == {
        "ks": pytest.approx(shapes[0]),
        "tv": pytest.approx(1),
        "correlation": None,
        "contingency": pytest.approx(1),
        "shapes": pytest.approx(np.mean(shapes)),
        "trends": pytest.approx(1),
    }
    same = tables.summarize_fidelity([numbers, kinds, numbers], [numbers, kinds, 10 - numbers])
    assert same["correlation"] == pytest.approx(0)
    assert same["contingency"] == pytest.approx((1 + 1 / 4) / 2)


@pytest.mark.parametrize("collapsed", [np.nan, 3.0])
def test_columns_that_collapse_score_nothing_and_those_that_always_did_are_left_out(collapsed):
    real = [np.arange(8.0), np.arange(8.0) ** 2]
    summary = tables.summarize_fidelity(real, [np.full(8, collapsed), real[1]])
    assert summary["correlation"] == summary["trends"] == 0
    assert summary["ks"] == pytest.approx((1 + (0 if np.isnan(collapsed) else 0.5)) / 2)
    constant = [np.full(8, collapsed), real[1]]
    assert tables.summarize_fidelity(constant, real)["correlation"] is None


@pytest.mark.slow
def test_a_large_table_takes_less_than_a_minute():
    rng = np.random.default_rng(0)
    sizes = (4000, 1000, *[64] * 17)
    train = np.stack([(rng.random(300_000) ** 2 * size).astype(np.int32) for size in sizes], axis=1)
    start = time.process_time()
    tree = tables.fit_tree(train, sizes)
    tables.tree_nats(tree, train[:30_000])
    assert time.process_time() - start < 60
