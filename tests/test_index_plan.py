"""The plan of a search index: exact while small, shorter codes as it grows, always within what was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedindex.index_plan import lists_for, make_plan

BUDGETS = st.integers(10**6, 10**11)


@pytest.mark.parametrize(
    ("windows", "memory", "kind"),
    [
        (0, 2e9, "flat"),
        (100_000, 2e9, "flat"),
        (1_000_000, 2e9, "sq8"),
        (1_000_000, 2e8, "rabitq"),
        (10_000_000, 1.5e9, "rabitq"),
        (60_000_000, 8e9, "rabitq"),
        (200, 1, "flat"),
    ],
)
def test_codes_become_shorter_as_the_index_grows(windows: int, memory: float, kind: str) -> None:
    assert make_plan(windows, 512, int(memory)).kind == kind


@given(st.integers(0, 10**9), st.integers(1, 4096), BUDGETS, st.floats(0.5, 0.999))
def test_plan_keeps_to_its_budget_or_is_the_smallest_there_is(
    windows: int, dimension: int, memory: int, recall: float
) -> None:
    plan = make_plan(windows, dimension, memory, recall)
    assert plan.fits or plan.kind == "rabitq" or lists_for(windows) < 16
    assert plan.latency_s >= 0
    assert plan.build_s >= 0
    assert plan.expected_recall >= min(recall, 0.995)
    assert plan.training <= windows


@given(st.integers(1000, 10**8), BUDGETS)
def test_more_memory_never_gives_shorter_codes(windows: int, memory: int) -> None:
    order = ["rabitq", "sq8", "flat"]
    small, large = make_plan(windows, 512, memory), make_plan(windows, 512, 2 * memory)
    assert order.index(large.kind) >= order.index(small.kind)


def test_recall_of_one_is_an_exact_index_of_any_size() -> None:
    assert make_plan(10_000_000, 512, 10**9, 1.0).kind == "flat"


def test_higher_recall_costs_time() -> None:
    assert make_plan(10**7, 512, 10**9, 0.99).latency_s > make_plan(10**7, 512, 10**9, 0.95).latency_s


@pytest.mark.parametrize("numbers", [(-1, 512, 10, 0.9), (1, 0, 10, 0.9), (1, 512, 0, 0.9), (1, 512, 10, 1.5)])
def test_nonsense_has_no_plan(numbers: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match="no plan for"):
        make_plan(*numbers)
