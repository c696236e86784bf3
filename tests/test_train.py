"""train: what it learns, what it writes, that others can open it safely, and that genre and evaluate use it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from embedindex.arrays import BoolArray, Float32Array, Int64Array
from embedindex.classifier_file import Session, read_classifier
from embedindex.classifier_graph import NeighboursClassifier, Scaling, rows_graph
from embedindex.classifier_rows import SEGMENT_SAMPLES, embedding_row, segments
from embedindex.errors import ModelError, QueryError, UsageError
from embedindex.fitting import Material, fit, temperature_of, tempered
from embedindex.history_plot import kept_step
from embedindex.keras_learners import MAX_EPOCHS, PATIENCE
from embedindex.label_store import FileLabel, add_import, given_labels
from embedindex.learners import BOOSTING_STEPS, TREES, expanded, learn, learn_boosting, parts_of
from embedindex.records import Label
from embedindex.store import Store
from embedindex.train import Plan, split_test, train
from embedindex.writer import StoreWriter
from tests.command_line import command
from tests.indexing import run_scan, write_samples
from tests.processes import children, finish, lives, start, wait_until
from tests.sounds import noise, sine

KITS, HITS = 6, 2
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow (embedindex[tensorflow]) is not installed"
)


def blobs(classes: int, seed: int = 0) -> tuple[Float32Array, BoolArray, Int64Array]:
    """Return rows around `classes` centres, what they are, and ten groups."""
    random = np.random.default_rng(seed)
    number = np.arange(120) % classes
    rows = random.standard_normal((120, 12)) + 1.2 * random.standard_normal((classes, 12))[number]
    return rows.astype(np.float32), np.eye(classes, dtype=bool)[number], np.arange(120) // 12


def plain(columns: int) -> Scaling:
    """Return a scaling that changes nothing short of the limit."""
    one = np.ones(columns, np.float32)
    return Scaling(0 * one, one, one, 100.0)


@pytest.fixture
def drums(library: Path, index: str) -> str:
    """Low, mid and hissing drums of six kits; the last kit is not labelled."""
    for kit in range(KITS):
        (library / f"kit{kit}").mkdir()
        for hit in range(HITS):
            for name, sound in (
                ("low", sine(150 + 5 * hit + 9 * kit, 0.4, 8000)),
                ("mid", sine(700 + 5 * hit + 30 * kit, 0.4, 8000)),
                ("hiss", noise(0.4, 8000, seed=kit * 10 + hit)),
            ):
                write_samples(library / f"kit{kit}" / f"{name}{hit}.wav", (0.25 * sound).astype(np.float32))
    run_scan(index, library)
    with StoreWriter(index) as store:
        add_import(
            store,
            "file",
            "",
            [
                FileLabel(record.id, Label("drum", Path(record.text_path).stem[:-1], "file", 1.0))
                for record in store.files()
                if f"kit{KITS - 1}" not in record.text_path
            ],
        )
    return index


@pytest.mark.parametrize("classes", [2, 4])
def test_saved_forest_and_boosting_say_what_scikit_learn_says(classes: int) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    rows, truth, groups = blobs(classes)
    asked = 2 * np.random.default_rng(1).standard_normal((200, 12)).astype(np.float32)
    place, label, weight = expanded(truth)
    known = np.eye(12, dtype=np.float32)[:1]
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=3).fit(rows[place], label, weight)
    graph = rows_graph(plain(12), learn("forest", rows, truth, groups, seed=3).classifier, known, classes, {})
    np.testing.assert_allclose(Session(graph).probabilities(asked), forest.predict_proba(asked), atol=1e-5)
    history: list[dict[str, float]] = []
    boosted = learn_boosting(rows, truth, (rows[:30], truth[:30]), seed=3, history=history)
    steps = int(np.argmin([line["val_loss"] for line in history])) + 1
    assert len(history) == BOOSTING_STEPS
    official = HistGradientBoostingClassifier(
        max_iter=steps,
        learning_rate=0.15,
        max_leaf_nodes=8,
        min_samples_leaf=5,
        l2_regularization=1.0,
        max_features=0.2,
        early_stopping=False,
        random_state=3,
    ).fit(rows[place], label, weight)
    said = Session(rows_graph(plain(12), boosted, known, classes, {})).probabilities(asked)
    np.testing.assert_allclose(said, official.predict_proba(asked), atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_saved_logistic_regression_is_scikit_learns_with_the_best_of_the_penalties(classes: int) -> None:
    from sklearn.linear_model import LogisticRegression

    rows, truth, groups = blobs(classes)
    place, label, weight = expanded(truth)
    graph = rows_graph(plain(12), learn("logistic", rows, truth, groups).classifier, rows[:1], classes, {})
    said = Session(graph).probabilities(rows)
    apart = [
        np.abs(LogisticRegression(C=c, max_iter=500).fit(rows[place], label, weight).predict_proba(rows) - said).max()
        for c in (0.3, 3.0, 30.0, 300.0)
    ]
    assert min(apart) < 0.01


def test_neighbours_vote_by_cosine_and_familiarity_is_the_best_cosine() -> None:
    rows = np.array([[1, 0], [0.8, 0.6], [-1, 0]], np.float32)
    labels = np.eye(3, dtype=np.float32)
    session = Session(rows_graph(plain(2), NeighboursClassifier(rows, labels, 2, 5.0), rows[1:], 3, {}))
    chances, known = session.run(np.array([[2.0, 0.0]], np.float32))
    votes = np.exp(5.0 * (np.array([1.0, 0.8, 0.0]) - 1.0)) * [1, 1, 0]
    np.testing.assert_allclose(chances[0], 0.95 * votes / votes.sum() + 0.05 / 3, atol=1e-6)
    assert known[0] == pytest.approx(0.8)


def test_parts_keep_groups_together_and_spread_the_classes() -> None:
    groups = np.repeat(np.arange(20), 5)
    truth = np.eye(4, dtype=bool)[np.repeat(np.arange(20) % 4, 5)]
    parts = parts_of(groups, truth, 5, seed=0)
    assert all(len(set(parts[groups == group])) == 1 for group in range(20))
    assert all((truth[parts == part].sum(axis=0) == 5).all() for part in range(5))


def test_temperature_makes_mean_confidence_the_share_that_is_right() -> None:
    random = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 400)]
    logits = random.standard_normal((400, 3)) + 1.5 * truth
    boasting = np.exp(6 * logits) / np.exp(6 * logits).sum(axis=1, keepdims=True)
    calm = tempered(boasting, temperature_of(boasting, truth))
    right = truth[np.arange(400), calm.argmax(axis=1)].mean()
    assert boasting.max(axis=1).mean() > right + 0.1
    assert calm.max(axis=1).mean() == pytest.approx(right, abs=0.01)


def test_embedding_row_is_mean_first_and_greatest_of_the_windows_that_sound() -> None:
    vectors = np.array([[0, 0], [1, 4], [3, 2]], np.float16)
    row = embedding_row(vectors)
    assert row is not None
    assert row.tolist() == [2, 3, 1, 4, 3, 4]
    assert embedding_row(np.zeros((2, 2), np.float16)) is None


def test_behind_a_short_sound_is_silence_and_long_ones_give_six_segments(tmp_path: Path) -> None:
    assert SEGMENT_SAMPLES == 100_000
    short = write_samples(tmp_path / "short.wav", sine(440, 0.2, 22_050), 22_050)
    (level_db,) = segments(os.fsencode(short))
    assert level_db.shape == (1 + SEGMENT_SAMPLES // 512, 64)
    assert level_db[:8].max(axis=1).min() > -20  # 0.2 s are 8.6 frames
    assert level_db[11:].max() == -80
    long = write_samples(tmp_path / "long.wav", sine(440, 60, 22_050), 22_050)
    assert len(segments(os.fsencode(long))) == 6


@pytest.mark.parametrize("method", ["knn", "logistic", "forest", "boosting"])
def test_trained_classifier_names_drums_of_a_kit_that_nobody_labelled(drums: str, method: str) -> None:
    told = command("train", "--index", drums, "--key", "drum", "--method", method, "--json").json
    assert (told["labels"], told["across_groups"], told["learnt_from"]) == (["hiss", "low", "mid"], True, 24)
    assert told["test"]["files"] == 6
    assert told["test"]["accuracy"] == 1.0
    assert bool(told["history"]) == (method == "boosting")
    judged = command("genre", "--index", drums, "--key", "drum", "--method", method, "--json").json
    named = {Path(one["path"]).stem[:-1]: one["top"][0]["value"] for one in judged["results"]}
    assert named == {"low": "low", "mid": "mid", "hiss": "hiss"}
    assert len(judged["results"]) == 6
    with Store(drums) as store:
        written = {label.source for labels in store.labels_of(range(1, 99)).values() for label in labels}
        assert written == {"file", f"predicted:{method}"}
        assert len(given_labels(store, "drum")) == 30


def test_same_seed_gives_the_same_file(drums: str, tmp_path: Path) -> None:
    for method in ("logistic", "forest"):
        written = []
        for number in (1, 2):
            with Store(drums) as store:
                train(
                    store,
                    Plan("drum", "forest" if method == "forest" else "logistic"),
                    str(tmp_path / f"{number}.onnx"),
                )
            written.append((tmp_path / f"{number}.onnx").read_bytes())
        assert written[0] == written[1]


def test_test_part_is_whole_groups_that_were_not_learnt_from(drums: str) -> None:
    rows, truth, groups = blobs(3)
    material = Material(rows, np.arange(120), (12,), truth, groups)
    learning, test = split_test(material, 0)
    assert len(test)
    assert not set(groups[learning]) & set(groups[test])


def test_confidence_and_familiarity_abstain(drums: str, library: Path) -> None:
    command("train", "--index", drums, "--key", "drum", "--method", "logistic")
    judged = command("genre", "--index", drums, "--key", "drum", "--method", "logistic", "--json", "--dry-run")
    sure = max(one["confidence"] for one in judged.json["results"])
    strict = ("--min-confidence", str(min(1.0, sure + 1e-4)), "--json", "--dry-run")
    judged = command("genre", "--index", drums, "--key", "drum", "--method", "logistic", *strict)
    assert {one["label"] for one in judged.json["results"]} == {None}


def test_classifier_in_a_file_judges_a_sound_outside_the_index(drums: str, tmp_path: Path) -> None:
    out = tmp_path / "drum.onnx"
    command("train", "--index", drums, "--key", "drum", "--on", "both", "--set", "rich", "--out", out)
    new = write_samples(tmp_path / "new.wav", (0.2 * sine(180, 0.4, 8000)).astype(np.float32))
    judged = command("genre", new, "--index", drums, "--key", "drum", "--method", out, "--json").json
    assert (judged["method"], judged["results"][0]["top"][0]["value"]) == ("logistic", "low")


def test_methods_are_compared_on_the_same_files(drums: str) -> None:
    ran = command(
        "evaluate", "--index", drums, "--key", "drum", "--methods", "knn", "--on", "embeddings,features", "-j", "1",
        "--controls", "--json",
    )  # fmt: skip
    lines = ran.json["methods"]
    assert [(line["name"], line["on"]) for line in lines] == [
        ("neighbours", "embeddings"),
        ("knn", "embeddings"),
        ("knn", "classic features"),
        ("metadata only", ""),
        ("random numbers", ""),
    ]
    assert {line["leave_one_group_out"]["files"] for line in lines} == {30}
    assert all(line["leave_one_group_out"]["accuracy"] == 1.0 for line in lines[:3])
    assert all(line["leave_one_group_out"]["accuracy"] < 0.8 for line in lines[3:])


def test_random_labels_are_not_learnt_across_groups() -> None:
    rows, _, groups = blobs(2)
    truth = np.eye(2, dtype=bool)[np.random.default_rng(5).integers(0, 2, 120)]
    fitted = fit("logistic", Material(rows, np.arange(120), (12,), truth, groups))
    fresh = Material(blobs(2, seed=9)[0], np.arange(120), (12,), truth, groups)
    assert fitted.chances(fresh).max(axis=1).mean() < 0.75  # it knows that it knows nothing


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95cos\nsystem\n", b"not a model"])
def test_file_that_is_no_classifier_is_refused(drums: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "strange.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a classifier"):
        read_classifier(str(path))
    ran = command("genre", "--index", drums, "--key", "drum", "--method", path)
    assert ran.status == 1
    assert "Traceback" not in ran.error


def test_altered_classifier_is_refused(drums: str, tmp_path: Path) -> None:
    path = tmp_path / "drum.onnx"
    with Store(drums) as store:
        train(store, Plan("drum", "logistic"), str(path))
    model = onnx.load(path)
    told = json.loads(model.metadata_props[0].value)
    for change, reason in (
        ({"version": 99}, "later embedindex"),
        ({"temperature": 0}, "is not"),
        ({"more": 1}, "is not"),
    ):
        model.metadata_props[0].value = json.dumps({**told, **change})
        onnx.save(model, path)
        with pytest.raises(ModelError, match=reason):
            read_classifier(str(path))


def test_what_cannot_be_learnt_is_said(drums: str, library: Path) -> None:
    with Store(drums) as store:
        with pytest.raises(QueryError, match="no file has a label"):
            train(store, Plan("mood", "logistic"))
        with pytest.raises(UsageError, match="cnn hears spectrograms"):
            train(store, Plan("drum", "cnn", on="embeddings"))
    for arguments, reason in (
        (("--method", "magic"), "the methods are: knn, logistic"),
        (("--on", "smell"), "choose embeddings"),
        (("--method", "logistic", "--plot", "x.png"), "learns in one step"),
    ):
        ran = command("train", "--index", drums, "--key", "drum", *arguments)
        assert (ran.status, reason in ran.error) == (2, True), ran.error
    ran = command("genre", "--index", drums, "--key", "drum", "--method", "forest")
    assert (ran.status, "embedindex train --key drum --method forest" in ran.error) == (1, True)


def test_labels_of_one_file_and_too_few_files_are_named(drums: str) -> None:
    with StoreWriter(drums) as store:
        first, second = [record.id for record in store.files()][:2]
        labels = [FileLabel(first, Label("few", "a", "file", 1.0)), FileLabel(second, Label("few", "b", "file", 1.0))]
        add_import(store, "file", "", labels)
    with Store(drums) as store, pytest.raises(QueryError, match="two labels with 2 usable files"):
        train(store, Plan("few", "logistic"))


def test_history_is_drawn(drums: str, tmp_path: Path) -> None:
    picture = tmp_path / "history.png"
    command("train", "--index", drums, "--key", "drum", "--method", "boosting", "--plot", picture, "-q")
    assert picture.read_bytes().startswith(b"\x89PNG")


def add_much_to_read(library: Path, index: str) -> None:
    """Add labelled files that take so long to read that Ctrl-C comes in their middle however fast the machine is."""
    first = write_samples(library / "kit0" / "low-long0.wav", noise(30.0, 8000))
    for number in range(1, 60):
        os.link(first, library / "kit0" / f"low-long{number}.wav")
    run_scan(index, library)
    with StoreWriter(index) as store:
        more = [record.id for record in store.files() if "low-long" in record.text_path]
        add_import(store, "file", "more", [FileLabel(one, Label("drum", "low", "file", 1.0)) for one in more])


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("moment", ["reading", "learning"])
def test_ctrl_c_leaves_the_classifier_that_was_there_and_nothing_half_written(
    library: Path, drums: str, moment: str
) -> None:
    if moment == "reading":
        add_much_to_read(library, drums)
    arguments = ("train", "--index", drums, "--key", "drum", "--method", "forest")
    command(*arguments)
    (before,) = Path(drums, "classifiers").iterdir()
    content = before.read_bytes()
    process = start(*arguments, "--on", "features", "-j", "1", "--seed", "1", start_new_session=True)
    wait_until(lambda: len(children(process.pid)) > 1)  # besides the tracker of semaphores: it reads files
    if moment == "learning":
        wait_until(lambda: len(children(process.pid)) < 2 or process.poll() is not None)
    started = children(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    status, _, error = finish(process)
    # It may have been over, or dying of it as its last act.
    assert status in ((130,) if moment == "reading" else (0, 130, -signal.SIGINT)), error
    assert "Traceback" not in error
    assert sorted(Path(drums, "classifiers").iterdir()) == [before]
    assert (before.read_bytes() == content) == (status == 130)
    assert read_classifier(str(before)).about.seed == (0 if status == 130 else 1)
    wait_until(lambda: not any(lives(one) for one in started))


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_missing_tensorflow_is_said_before_anything_is_read(drums: str) -> None:
    ran = command("train", "--index", drums, "--key", "drum", "--method", "mlp")
    assert (ran.status, "pip install 'embedindex[tensorflow]'" in ran.error) == (1, True)


def test_step_that_is_said_to_be_kept_is_the_one_that_was() -> None:
    rising = [{"val_loss": loss} for loss in (3.0, 1.0, 2.0, 1.0)]
    assert kept_step(rising) == 2
    calibrated = [
        {**line, "val_calibrated_loss": loss} for line, loss in zip(rising, (2.0, 1.0, 0.5, 0.7), strict=True)
    ]
    assert kept_step(calibrated) == 3


@needs_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(("method", "on"), [("mlp", "features"), ("mlp", "embeddings"), ("cnn", "segments")])
def test_neural_networks_learn_and_are_used_without_keras(drums: str, tmp_path: Path, method: str, on: str) -> None:
    picture = tmp_path / "history.png"
    arguments = ("--index", drums, "--key", "drum", "--method", method)
    told = command("train", *arguments, "--on", on, "--plot", picture, "--json").json
    assert told["test"]["accuracy"] >= 0.5
    assert set(told["history"][0]) >= {"loss", "accuracy", "val_loss", "val_accuracy", "val_calibrated_loss"}
    assert len(told["history"]) in (kept_step(told["history"]) + PATIENCE, MAX_EPOCHS)
    assert picture.read_bytes().startswith(b"\x89PNG")
    judged = command("genre", *arguments, "--json").json
    assert len(judged["results"]) == 6
    again = command("train", *arguments, "--on", on, "--json").json
    assert again["history"] == told["history"]


def test_too_much_confidence_is_no_reason_to_stop_a_network() -> None:
    """Twice as sure in every log odds, it is as good once calibrated; knowing nothing is not."""
    from embedindex.keras_learners import calibrated_loss

    scores = np.random.default_rng(2).standard_normal((200, 3)) + 2 * np.eye(3)[np.arange(200) % 3]
    label, weight = np.arange(200) % 3, np.ones(200)

    def loss(factor: float) -> float:
        raised = np.exp(factor * scores)
        return calibrated_loss(np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32), label, weight)

    # Two Gaussians 2 apart: twice the difference are the true log odds.
    assert loss(4) == pytest.approx(loss(2), abs=1e-3)
    log_loss = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the independent reference").log_loss
    raised = np.exp(2 * scores)
    assert loss(2) == pytest.approx(log_loss(label, raised / raised.sum(axis=1, keepdims=True)), abs=1e-3)
    assert calibrated_loss(np.full((200, 3), 1 / 3, np.float32), label, weight) == pytest.approx(np.log(3))


@needs_tensorflow
@pytest.mark.slow
def test_saved_networks_say_what_keras_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from embedindex import keras_learners
    from embedindex.classifier_graph import conv_graph

    kept: list[npt.NDArray[np.float32]] = []
    fit_once = keras_learners._fit

    def spy(keras: object, model: object, inputs: Float32Array, *rest: object) -> None:
        fit_once(keras, model, inputs, *rest)  # type: ignore[arg-type]
        kept.append(model.predict(inputs, verbose=0))  # type: ignore[attr-defined]

    monkeypatch.setattr(keras_learners, "_fit", spy)
    monkeypatch.setattr(keras_learners, "MAX_EPOCHS", 4)
    rows, truth, _ = blobs(3)
    dense = keras_learners.learn_dense(rows, truth, (rows, truth), seed=1, history=[])
    said = Session(rows_graph(plain(12), dense, rows[:1], 3, {})).probabilities(rows)
    np.testing.assert_allclose(said, kept[0], atol=1e-4)
    sounds = np.random.default_rng(0).standard_normal((120, 40, 24)).astype(np.float32) + truth[:, :1, None]
    network = keras_learners.learn_conv(sounds, truth, (sounds, truth), seed=1, history=[])
    said = Session(conv_graph(network, 24, 3, {})).probabilities(sounds)
    np.testing.assert_allclose(said, kept[1], atol=1e-4)
