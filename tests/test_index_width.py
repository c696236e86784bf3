"""The rows of a search index are padded to a width that FAISS is fast with; nobody else may notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedindex.index import FAISS_WIDTH, load_view
from embedindex.index_file import read_index_file
from embedindex.index_refresh import refresh_index
from embedindex.models import ModelRequest, load_model
from embedindex.store import Store
from embedindex.verify import verify
from embedindex.writer import StoreWriter
from tests.storing import content, stat_of

REQUEST = ModelRequest("spectral")


@pytest.fixture
def index_of_odd_width(tmp_path: Path) -> str:
    """An index of 200 random vectors of the built-in model's dimension, which is no multiple of the width."""
    folder = str(tmp_path / "index")
    identity = load_model(REQUEST).identity
    assert identity.dimension % FAISS_WIDTH
    random = np.random.default_rng(1)
    with StoreWriter(folder) as store:
        store.use_model(identity, REQUEST, 0.5)
        root_id = store.put_root(b"/library", None)
        for number in range(10):
            vectors = random.standard_normal((20, identity.dimension)).astype(np.float16)
            store.put_file(b"/library/%d.wav" % number, root_id, stat_of(number), content(vectors))
        refresh_index(store)
    return folder


def test_rows_are_as_wide_as_faiss_is_fast_with(index_of_odd_width: str) -> None:
    found = read_index_file(index_of_odd_width)
    assert found is not None
    assert found[0].d % FAISS_WIDTH == 0


def test_padded_rows_are_found_with_the_similarity_they_have(index_of_odd_width: str) -> None:
    with Store(index_of_odd_width) as store:
        view = load_view(store)
        numbers, vectors = next(store.vector_batches())
        rows = view.space.apply(vectors)
        scores, windows = view.search(rows[:5], len(rows))
    for row in range(5):
        wanted = rows @ rows[row]
        np.testing.assert_allclose(scores[row], np.sort(wanted)[::-1], atol=1e-3)
        np.testing.assert_allclose(wanted[np.searchsorted(numbers, windows[row])], scores[row], atol=1e-3)


def test_verify_finds_padded_rows_equal_to_the_database(index_of_odd_width: str) -> None:
    with Store(index_of_odd_width) as store:
        assert verify(store).problems == ()
