"""Which search index suits so many windows: exact while they are few, lists of ever shorter codes as they grow.

A pure function from numbers to a plan. Conventions: bytes, seconds; a latency is that of one query vector in a warm
process on one core, re-ranking included. The coefficients are estimates for two cores of an AMD EPYC (Zen 5), FAISS
1.15, 512 dimensions; at ten million windows a search took 27 ms of processor time where they say 19, and building took
twice the processor time they say (docs/search-at-scale.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["flat", "sq8", "rabitq"]

DEFAULT_MEMORY_BYTES = 2 * 10**9
DEFAULT_RECALL = 0.95

# Exact search is kept as long as its bytes can be compared in this time, whatever memory there is.
EXACT_LATENCY_S = 0.02
# k-means finds no good centres from fewer vectors, and lists of fewer are read one by one.
MIN_LISTS = 16
TRAINING_A_LIST = 60
ID_BYTES = 8
# A code of one bit a dimension comes with two float32 that correct its length.
RABITQ_FACTOR_BYTES = 8

# -- estimated -----------------------------------------------------------------------------------------------------
EXACT_BYTES_A_S = 9e9  # float16 compared with a query, from memory
ROW_FETCH_S = 60e-6  # one stored vector for re-ranking, from a row of 32 in SQLite
CODE_S = {"sq8": 30e-9, "rabitq": 20e-9}  # one code of 512 dimensions compared, its share of decoding included
MULTIPLY_ADDS_A_S = 60e9  # products of matrices, all cores
READ_S = 4e-6  # one vector from the database into the space, at 512 dimensions
TRAINING_ROUNDS = 10
# (recall@10 after re-ranking, share of lists that are read, candidates for re-ranking): a first guess, which building
# replaces by what it measures. 0.95 was seen at ten million windows, the others follow proportions at a quarter of one.
RECALL_STEPS = ((0.90, 0.031, 60), (0.95, 0.0625, 100), (0.98, 0.125, 160), (0.99, 0.25, 240), (0.995, 0.5, 400))


@dataclass(frozen=True)
class Plan:
    """How a search index is to be built, and what to expect of it.

    Attributes:
        kind: ``"flat"``: all vectors as float16, compared exactly. ``"sq8"``: lists of vectors around centres, a byte
            a dimension. ``"rabitq"``: lists of codes of a bit a dimension.
        windows: for how many windows it was made.
        dimension: of the vectors.
        lists: number of centres, 0 when flat.
        training: how many vectors the centres are learnt from.
        memory_bytes: the budget that it was made for.
        recall: the target: share of the 10 true nearest windows that are to be found.
        file_bytes: expected length of the file, which is all that a search can ever hold in memory of it.
        build_s: expected time to build it.
        expected_recall: expected recall@10; 1 when exact.
        latency_s: expected time of a search for one vector.
    """

    kind: Kind
    windows: int
    dimension: int
    lists: int
    training: int
    memory_bytes: int
    recall: float
    file_bytes: int
    build_s: float
    expected_recall: float
    latency_s: float

    @property
    def fits(self) -> bool:
        """Whether it keeps to its budget of memory; when not, it is the smallest there is."""
        return self.file_bytes <= self.memory_bytes

    @property
    def factory(self) -> str:
        """What FAISS's `index_factory` calls it, without the dimension that vectors are padded to."""
        if self.kind == "flat":
            return "IDMap,SQfp16"
        # Codes of one bit ask for dimensions of equal weight, which a random rotation gives (RaBitQ, SIGMOD 2024).
        return f"IVF{self.lists},SQ8" if self.kind == "sq8" else f"RR,IVF{self.lists},RaBitQ"


def make_plan(
    windows: int, dimension: int, memory_bytes: int = DEFAULT_MEMORY_BYTES, recall: float = DEFAULT_RECALL
) -> Plan:
    """Return the plan for an index: the most exact kind that is quick enough and keeps to the budget.

    Args:
        windows: how many vectors.
        dimension: their length.
        memory_bytes: how many bytes the search index may have in memory.
        recall: share of the 10 true nearest windows that a search is to find, above 0 and at most 1; 1 asks for an
            exact index at any size.

    Raises:
        ValueError: a number makes no sense.
    """
    if windows < 0 or dimension < 1 or memory_bytes < 1 or not 0 < recall <= 1:
        raise ValueError(f"no plan for {windows} windows of {dimension}, {memory_bytes} bytes and recall {recall}")
    flat_bytes = windows * (2 * dimension + ID_BYTES)
    exact_s = flat_bytes / EXACT_BYTES_A_S
    enough = flat_bytes <= memory_bytes and exact_s <= EXACT_LATENCY_S
    if enough or recall == 1 or lists_for(windows) < MIN_LISTS:
        return Plan(
            "flat", windows, dimension, 0, 0, memory_bytes, recall, flat_bytes, windows * READ_S * 1.5, 1.0, exact_s
        )
    sq8 = _lists_plan("sq8", windows, dimension, memory_bytes, recall)
    return sq8 if sq8.fits else _lists_plan("rabitq", windows, dimension, memory_bytes, recall)


def lists_for(windows: int) -> int:
    """Return a number of lists: the power of two next below the root, so that building grows as windows^1.5 does."""
    return 1 << max(0, math.floor(math.log2(max(1, windows)) / 2 + 0.1))


def code_bytes(kind: Kind, dimension: int) -> int:
    """Return the length of one vector's code in a list."""
    return dimension if kind == "sq8" else -(-dimension // 8) + RABITQ_FACTOR_BYTES


def _lists_plan(kind: Kind, windows: int, dimension: int, memory_bytes: int, recall: float) -> Plan:
    lists = lists_for(windows)
    training = min(windows, TRAINING_A_LIST * lists)
    file_bytes = windows * (code_bytes(kind, dimension) + ID_BYTES) + lists * dimension * 4
    expected, share, candidates = next((step for step in RECALL_STEPS if step[0] >= recall), RECALL_STEPS[-1])
    turned = windows * dimension**2 if kind == "rabitq" else 0
    products = dimension * lists * (windows + TRAINING_ROUNDS * training) + turned
    build_s = windows * READ_S * dimension / 512 + products / MULTIPLY_ADDS_A_S
    compared_s = share * windows * CODE_S[kind] * dimension / 512
    latency_s = compared_s + candidates * ROW_FETCH_S + lists * dimension / 5e9
    return Plan(
        kind,
        windows,
        dimension,
        lists,
        training,
        memory_bytes,
        recall,
        file_bytes,
        build_s,
        expected,
        latency_s,
    )
