"""Which search index suits so many windows: exact while they are few, lists of ever shorter codes as they grow.

A pure function from numbers to a plan. Conventions: bytes, seconds; a latency is that of one query vector in a warm
process on one core, re-ranking included. The coefficients are estimates for two cores of an AMD EPYC (Zen 5), FAISS
1.15, 512 dimensions; docs/search-at-scale.md has what was measured beside what they say.
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
LISTS_A_ROOT = 4
TRAINING_A_LIST = 40
TRAINING_ROUNDS = 10
# So many centres and more are learnt and found in two levels (`index_centres`).
TWO_LEVELS_FROM = 2048
PARTS_PROBED = 12
POLISHING_ROUNDS = 2
# Windows, of as many files, by which it is measured how much a search must read.
HELD_OUT = 512
ID_BYTES = 8
# A code of one bit a dimension comes with two float32 that correct its length.
RABITQ_FACTOR_BYTES = 8
CENTRE_BYTES = 2  # a dimension of a centre

# -- estimated -----------------------------------------------------------------------------------------------------
EXACT_BYTES_A_S = 9e9  # float16 compared with a query, from memory
SEARCH_S = 0.5e-3  # what every search costs
ROW_FETCH_S = 25e-6  # one stored vector for re-ranking, from a row of 32 in SQLite
CENTRE_S = 30e-9  # one centre compared
CODE_S: dict[Kind, float] = {"flat": 0.0, "sq8": 30e-9, "rabitq": 13e-9}  # one code of 512 dimensions compared
MULTIPLY_ADDS_A_S = 60e9  # products of matrices, all cores
READ_S = 4e-6  # one vector from the database into the space, at 512 dimensions
CODING_S = 15e-6  # one vector from the database into a list but for products of matrices, all cores
# (recall@10 after re-ranking, share of codes that are compared, candidates for re-ranking): a first guess, which
# building replaces by what it measures. 0.95 was seen at ten million windows, the others follow proportions elsewhere.
RECALL_STEPS = ((0.90, 0.015, 60), (0.95, 0.03, 100), (0.98, 0.07, 160), (0.99, 0.12, 240), (0.995, 0.25, 400))


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
        centres = f"IVF{self.lists}(SQfp16)"
        return f"{centres},SQ8" if self.kind == "sq8" else f"RR,{centres},RaBitQ"


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
    """Return a number of lists: the power of two nearest to four times the root, as FAISS's guidelines have it."""
    wanted = min(LISTS_A_ROOT * math.sqrt(windows), windows / (2 * TRAINING_A_LIST))  # half teaches the centres
    return 1 << round(math.log2(max(1, wanted)))


def search_s(kind: Kind, dimension: int, lists: int, codes: float, candidates: float) -> float:
    """Return the expected time of a search that compares a vector with all centres and so many codes.

    Args:
        kind: of the codes.
        dimension: of the vectors.
        lists: how many there are.
        codes: how many codes are compared.
        candidates: how many windows are ranked by their stored vectors.
    """
    widths = dimension / 512
    return SEARCH_S + (lists * CENTRE_S + codes * CODE_S[kind]) * widths + candidates * ROW_FETCH_S


def code_bytes(kind: Kind, dimension: int) -> int:
    """Return the length of one vector's code in a list."""
    return dimension if kind == "sq8" else -(-dimension // 8) + RABITQ_FACTOR_BYTES


def _lists_plan(kind: Kind, windows: int, dimension: int, memory_bytes: int, recall: float) -> Plan:
    lists = lists_for(windows)
    training = min(windows, TRAINING_A_LIST * lists)
    file_bytes = windows * (code_bytes(kind, dimension) + ID_BYTES) + lists * dimension * CENTRE_BYTES
    expected, share, candidates = next((step for step in RECALL_STEPS if step[0] >= recall), RECALL_STEPS[-1])
    # Two levels of centres: see `index_centres`.
    compared = lists if lists < TWO_LEVELS_FROM else (1 + PARTS_PROBED) * math.sqrt(lists)
    learning = training * (compared * POLISHING_ROUNDS + TRAINING_ROUNDS * 2 * math.sqrt(lists))
    products = dimension * ((windows + HELD_OUT) * compared + windows * HELD_OUT + learning)
    products += windows * dimension**2 if kind == "rabitq" else 0
    build_s = windows * CODING_S * dimension / 512 + products / MULTIPLY_ADDS_A_S
    latency_s = search_s(kind, dimension, lists, share * windows, candidates)
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
