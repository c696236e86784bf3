"""Evaluation: leave-one-out, without the own group, k-fold; what it says of a known collection, and its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedindex.errors import QueryError, UsageError
from embedindex.evaluate import evaluate, stratified_parts
from embedindex.genre import learn_judge
from embedindex.label_store import FileLabel, add_import
from embedindex.labelled import class_table, load_labelled
from embedindex.likeness import FileSet, join, likeness, space_of, stretch_rows
from embedindex.records import Label
from embedindex.store import Store
from embedindex.voting import (
    PIECES,
    USUAL_SOURCES,
    USUAL_WEIGHTS,
    Evidence,
    cross_fitted,
    gather_evidence,
    learn_voter,
    plain_vote,
)
from embedindex.writer import StoreWriter
from tests.command_line import Cli, command_line
from tests.indexing import run_scan, write_samples
from tests.sounds import noise, sine

KITS, HITS = 4, 3


def unit(rows: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def cli(index: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command line on the index."""
    return command_line(index, monkeypatch)


@pytest.fixture
def drums(library: Path, index: str) -> str:
    """Kicks, tones and hisses of four kits; each kit has a hum of its own, louder than what tells the drums apart."""
    for kit in range(KITS):
        (library / f"kit{kit}").mkdir()
        hum = 3 * sine(1000 + 700 * kit, 0.4, 8000)
        for hit in range(HITS):
            for name, sound in (
                ("low", sine(150 + 5 * hit, 0.4, 8000)),
                ("mid", sine(700 + 5 * hit, 0.4, 8000)),
                ("hiss", noise(0.4, 8000, seed=kit * 10 + hit)),
            ):
                write_samples(library / f"kit{kit}" / f"{name}{hit}.wav", (0.25 * (sound + hum)).astype(np.float32))
    run_scan(index, library)
    with StoreWriter(index) as store:
        labels = [
            FileLabel(record.id, Label("drum", Path(record.text_path).stem[:-1], "file", 1.0))
            for record in store.files()
        ]
        labels += [
            FileLabel(record.id, Label("kit", Path(record.text_path).parent.name, "file", 1.0))
            for record in store.files()
        ]
        add_import(store, "file", "", labels)
    return index


def test_json_is_what_programs_rely_on(drums: str, cli: Cli) -> None:
    told = json.loads(cli("evaluate", "--key", "drum", "-k", "3", "--folds", "3", "--controls", "--json"))
    assert (told["key"], told["k"], told["model"], told["files"]) == ("drum", 3, "tiny", KITS * HITS * 3)
    for protocol in ("leave_one_out", "leave_one_group_out", "k_fold"):
        assert set(told[protocol]) >= {"accuracy", "macro_f1", "map", "precision_at_10", "ece", "confusion"}
    assert told["leave_one_group_out"]["groups"] == KITS
    assert [method["name"] for method in told["methods"]] == ["tiny", "metadata only", "random numbers"]
    assert list(told).index("leave_one_group_out") < list(told).index("leave_one_out")
    assert np.sum(told["leave_one_out"]["confusion"]) == told["leave_one_out"]["files"]


def test_label_that_kits_share_by_chance_is_seen_through_without_the_own_kit(drums: str) -> None:
    """Two makers of two kits each, which have nothing in common: leave-one-out recognises the kit, not the maker."""
    with StoreWriter(drums) as store:
        makers = {"kit0": "A", "kit1": "B", "kit2": "A", "kit3": "B"}
        labels = [
            FileLabel(record.id, Label("maker", makers[Path(record.text_path).parent.name], "file", 1.0))
            for record in store.files()
        ]
        add_import(store, "file", "", labels)
        (method,) = evaluate([store], "maker", "folder", k=3).methods
    assert method.leave_one_out is not None
    assert method.grouped is not None
    assert method.leave_one_out.accuracy == 1.0
    assert method.grouped.accuracy < 0.6
    assert method.grouped.groups == KITS
    assert method.leave_one_out.groups == KITS * HITS * 3


def test_grouped_figure_is_null_where_no_label_occurs_in_two_groups(drums: str, cli: Cli) -> None:
    told = json.loads(cli("evaluate", "--key", "kit", "--json"))
    assert told["leave_one_group_out"] is None
    assert told["leave_one_out"]["files"] == KITS * HITS * 3


def test_controls_are_beaten_and_random_numbers_know_nothing(drums: str) -> None:
    with Store(drums) as store:
        real, _, random = evaluate([store], "drum", controls=True).methods
    assert real.leave_one_out is not None
    assert random.leave_one_out is not None
    assert real.leave_one_out.accuracy > random.leave_one_out.accuracy + 0.3
    assert random.leave_one_out.precision_at_10 == pytest.approx(11 / 35, abs=0.15)


def test_indexes_are_compared_on_the_files_they_share(drums: str, library: Path, tmp_path: Path) -> None:
    from embedindex.models import ModelRequest

    other = str(tmp_path / "other")
    run_scan(other, library / "kit0", library / "kit1", request=ModelRequest("tiny", (("standardise", "yes"),)))
    with Store(drums) as first, Store(other) as second:
        result = evaluate([first, second], "drum", k=2)
        assert [method.name for method in result.methods] == ["tiny", "tiny (2)", "tiny + tiny (2)"]
        assert len(result.labelled) == 2 * HITS * 3
        alone = evaluate([second, first], "drum", k=2) if second.counts().labels else None
    assert alone is None  # labels come from the first index alone


def test_question_without_answer_is_refused(drums: str, cli: Cli) -> None:
    assert "label import" in cli("evaluate", "--key", "mood", status=1)
    assert "choose folder" in cli("evaluate", "--key", "drum", "--group", "planet", status=2)
    with StoreWriter(drums) as store:
        add_import(store, "x", "", [FileLabel(record.id, Label("one", "a", "x", 1.0)) for record in store.files()])
        with pytest.raises(QueryError, match="at least two"):
            evaluate([store], "one")
        first, second = list(store.files())[:2]
        pair = [FileLabel(first.id, Label("two", "a", "x", 1.0)), FileLabel(second.id, Label("two", "b", "x", 1.0))]
        add_import(store, "x", "", pair)
        with pytest.raises(QueryError, match="no two labelled files"):
            evaluate([store], "two")
        with pytest.raises(UsageError, match="--group"):
            evaluate([store], "drum", "nothing")


def test_prediction_counts_for_nothing(drums: str) -> None:
    with StoreWriter(drums) as store:
        record = next(iter(store.files()))
        store.put_labels(record.id, [Label("drum", "spoon", "predicted:knn", 1.0)])
        labelled = load_labelled(store, space_of(store), "drum", "folder", limit=1000)
    assert "spoon" not in labelled.classes


def test_csv_names_every_judged_file(drums: str, cli: Cli) -> None:
    lines = cli("evaluate", "--key", "drum", "--csv").splitlines()
    assert lines[0] == "path,label,predicted,confidence"
    assert len(lines) == 1 + KITS * HITS * 3


def test_pictures_are_written_or_matplotlib_is_asked_for(drums: str, cli: Cli, tmp_path: Path) -> None:
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        assert "embedindex[plots]" in cli("evaluate", "--key", "drum", "--plots", tmp_path / "p", status=1)
        return
    cli("evaluate", "--key", "drum", "--plots", tmp_path / "p")
    for name in ("confusion.png", "reliability.png"):
        assert (tmp_path / "p" / name).read_bytes().startswith(b"\x89PNG")


def test_values_that_mean_the_same_are_one_class_under_the_commonest_spelling() -> None:
    classes, truth = class_table("genre", [["Hip-Hop"], ["hip hop"], ["hip hop"], ["Jazz", "hiphop"]])
    assert classes == ("Jazz", "hip hop")
    np.testing.assert_array_equal(truth, [[False, True], [False, True], [False, True], [True, True]])


def test_likeness_is_the_mean_of_both_directions_of_the_best_matches() -> None:
    random = np.random.default_rng(4)
    counts = [1, 3, 2, 4]
    parts = [unit(random.standard_normal((count, 5))) for count in counts]
    files = FileSet(np.arange(4), np.concatenate(parts), np.cumsum([0, *counts]), np.zeros((4, 15), np.float32))
    found = likeness(files, files)
    for a in range(4):
        for b in range(4):
            table = parts[a] @ parts[b].T
            expected = (table.max(axis=1).mean() + table.max(axis=0).mean()) / 2
            assert found[a, b] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-6)
    part = files.take(np.array([3, 1]))
    np.testing.assert_allclose(likeness(part, files), found[[3, 1]], atol=1e-6)
    np.testing.assert_allclose(likeness(join([files.part(0, 2), files.part(2, 4)]), files), found, atol=1e-6)


def test_stretches_cover_the_whole_file_evenly() -> None:
    rows = unit(np.random.default_rng(5).standard_normal((10, 4)))
    np.testing.assert_allclose(stretch_rows(rows, 2), unit(np.stack([rows[:5].sum(0), rows[5:].sum(0)])), atol=1e-6)
    assert stretch_rows(rows, 16) is rows


def test_evidence_is_nearest_mean_of_k_nearest_and_regression() -> None:
    likenesses = np.array([[0.9, 0.5, 0.1, 0.3]], np.float32)
    truth = np.array([[True, False], [True, False], [True, False], [False, True]])
    said = np.array([[0.8, 0.2]])
    (two,) = gather_evidence(likenesses, truth, said, [2])
    np.testing.assert_allclose(two.pieces[0], [[0.9, 0.7, 0.8], [0.3, 0.3, 0.2]], atol=1e-6)
    (one, three) = gather_evidence(likenesses, truth, said, [1, 3], np.array([[False, True, True, False]]))
    np.testing.assert_allclose(one.pieces[0, 0], [0.5, 0.5, 0.8], atol=1e-6)
    np.testing.assert_allclose(three.pieces[0, 0], [0.5, 0.3, 0.8], atol=1e-6)
    np.testing.assert_array_equal(one.present, [[True, False]])


def test_files_of_one_source_are_one_witness() -> None:
    """Its two nearest files of the class speak for a source; one of which no file may speak is not heard."""
    likenesses = np.array([[0.9, 0.8, 0.7, 0.2, 0.4, 0.6]], np.float32)
    truth = np.array([[True, False]] * 5 + [[False, True]])
    sources, said = np.array([7, 7, 7, 2, 5, 7]), np.array([[0.0, 0.0]])
    (two, all_of_them) = gather_evidence(likenesses, truth, said, [2, 20], None, sources)
    np.testing.assert_allclose(two.pieces[0, :, :2], [[0.9, (0.85 + 0.4) / 2], [0.6, 0.6]], atol=1e-6)
    np.testing.assert_allclose(all_of_them.pieces[0, 0, :2], [0.9, (0.85 + 0.4 + 0.2) / 3], atol=1e-6)
    some = np.array([[False, False, True, False, True, False]])
    (heard,) = gather_evidence(likenesses, truth, said, [20], some, sources)
    np.testing.assert_allclose(heard.pieces[0, 0, :2], [0.7, (0.7 + 0.4) / 2], atol=1e-6)
    np.testing.assert_array_equal(heard.present, [[True, False]])


def test_a_split_that_tears_groups_apart_hears_every_file_for_itself(drums: str) -> None:
    with Store(drums) as store:
        labelled = load_labelled(store, space_of(store), "drum", "folder", limit=100)
    groups, alone = labelled.groups, np.arange(len(labelled))
    np.testing.assert_array_equal(labelled.sources(groups), groups)
    np.testing.assert_array_equal(labelled.sources(groups // 2), groups)
    np.testing.assert_array_equal(labelled.sources(alone // 2), alone)


def test_folders_are_witnesses_where_labels_occur_in_several(drums: str) -> None:
    with Store(drums) as store:
        judge = learn_judge(store, "drum")
        np.testing.assert_array_equal(judge.sources, judge.labelled.groups)
        assert judge.voter.k == USUAL_SOURCES
        files = judge.labelled.files.part(0, 5)
        found = judge.judge(files)
        alike = judge.views.likeness(files, judge.labelled.files)
        own = files.ids[:, None] != judge.labelled.files.ids[None, :]
        told, truth = judge.regression.left_out[:5], judge.labelled.truth
        (evidence,) = gather_evidence(alike - judge.penalties, truth, told, [judge.voter.k], own, judge.labelled.groups)
        np.testing.assert_allclose(
            [one.values[0][1] for one in found], judge.voter.probabilities(evidence).max(axis=1), atol=1e-5
        )


def test_plain_vote_is_that_of_scikit_learn() -> None:
    neighbours = pytest.importorskip("sklearn.neighbors", reason="scikit-learn is the independent reference")
    random = np.random.default_rng(6)
    rows, classes = unit(random.standard_normal((60, 3))), random.integers(0, 2, 60)
    queries = unit(random.standard_normal((20, 3)))
    model = neighbours.KNeighborsClassifier(5, metric="cosine").fit(rows, classes)
    shares = plain_vote(queries @ rows.T, np.eye(2, dtype=bool)[classes], np.ones((20, 60), bool), 5)
    np.testing.assert_allclose(shares, model.predict_proba(queries), atol=2e-3)


def test_probabilities_can_be_believed_on_groups_that_were_never_seen() -> None:
    """Two overlapping classes whose true probabilities are known: a quarter of the labels is wrong by chance."""
    random = np.random.default_rng(7)
    count, groups = 900, np.arange(900) % 30
    is_class = random.integers(0, 2, count)
    rows = unit(np.eye(2)[is_class] + 0.2 * random.standard_normal((count, 2)))
    given = np.where(random.random(count) < 0.25, 1 - is_class, is_class)
    chances, _ = cross_fitted(rows @ rows.T, np.zeros(count, np.float32), np.eye(2, dtype=bool)[given], groups, (5, 20))
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    hit = chances.argmax(axis=1) == given
    assert hit.mean() > 0.7
    assert chances.max(axis=1).mean() == pytest.approx(hit.mean(), abs=0.03)


def test_few_groups_move_the_weights_of_the_evidence_less_than_many_do() -> None:
    """The same evidence: files of one group are right or wrong together, and teach no more than one file."""
    random = np.random.default_rng(9)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 300)]
    pieces = random.standard_normal((300, 3, PIECES))
    pieces[..., 0] += 2.0 * truth  # only the first piece knows anything
    evidence = Evidence(pieces, np.ones((300, 3), bool))
    few, many = (learn_voter(evidence, truth, groups, 5) for groups in (np.arange(300) % 4, np.arange(300)))
    usual = USUAL_WEIGHTS[1] / USUAL_WEIGHTS[0]
    assert abs(many.weights[1] / many.weights[0]) < 0.2 < few.weights[1] / few.weights[0] < usual


def test_voter_never_sees_the_labels_that_it_judges() -> None:
    """Labels without any pattern: whoever peeked would be right more often than by chance."""
    random = np.random.default_rng(8)
    rows, given = unit(random.standard_normal((400, 8))), random.integers(0, 4, 400)
    chances, _ = cross_fitted(
        rows @ rows.T, np.zeros(400, np.float32), np.eye(4, dtype=bool)[given], np.arange(400), (1, 5)
    )
    assert (chances.argmax(axis=1) == given).mean() == pytest.approx(0.25, abs=0.08)


def test_stratified_parts_spread_every_class_evenly() -> None:
    truth = np.eye(3, dtype=bool)[[0] * 10 + [1] * 20 + [2] * 5]
    parts = stratified_parts(truth, 5, seed=0)
    for number in range(3):
        np.testing.assert_array_equal(np.bincount(parts[truth[:, number]], minlength=5), truth[:, number].sum() // 5)
