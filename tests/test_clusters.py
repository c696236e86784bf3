"""Clusters: found where they are, chosen by how clearly they separate, named, and kept as labels that can be undone."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, silhouette_score

from embedindex.clusters import _silhouette, find_clusters
from embedindex.label_store import FileLabel, add_import, given_labels
from embedindex.records import Label
from embedindex.store import Store
from embedindex.writer import StoreWriter
from tests.command_line import command, refusal
from tests.indexing import write_samples
from tests.remixing import RATE, scan_spectral
from tests.sounds import drum_hit, pad

KINDS = ("hat", "kick", "pad")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the index of three kinds of sounds, eight of each; tests copy it before they write."""
    folder = tmp_path_factory.mktemp("clusters")
    for number in range(8):
        for kind in KINDS:
            if kind == "pad":
                sound = pad([110.0 + number, 165.0 + number], 1.5, RATE)
            else:
                sound = drum_hit(kind, number, 0.3, RATE)  # type: ignore[arg-type]
            (folder / "library" / kind).mkdir(parents=True, exist_ok=True)
            write_samples(folder / "library" / kind / f"{number}.wav", sound, RATE)
    scan_spectral(str(folder / "index"), folder / "library")
    return folder


@pytest.fixture
def index(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of that index."""
    import shutil

    shutil.copytree(place / "index", tmp_path / "index")
    monkeypatch.setenv("EMBEDINDEX_INDEX", str(tmp_path / "index"))
    return str(tmp_path / "index")


def kind_of(path: str) -> str:
    return os.path.basename(os.path.dirname(path))


def clusters_of(index: str, key: str = "cluster") -> dict[str, str]:
    with Store(index) as store:
        records = list(store.files())
        labels = store.labels_of(record.id for record in records)
    return {
        record.text_path: next((one.value for one in labels.get(record.id, []) if one.key == key), "")
        for record in records
    }


@pytest.mark.parametrize("options", [(), ("--clusters", "3"), ("--method", "hdbscan")])
def test_kinds_of_sounds_are_found(index: str, options: tuple[str, ...]) -> None:
    found = command("cluster", "--json", *options).json
    assert len(found["clusters"]) == 3, found["chosen"]
    named = clusters_of(index)
    score = adjusted_mutual_info_score([kind_of(path) for path in named], list(named.values()))
    assert score > 0.9
    for group in found["clusters"]:
        kinds = {kind_of(example["path"]) for example in group["exemplars"]}
        assert len(kinds) == 1
        assert {named[example["path"]] for example in group["exemplars"]} == {group["name"]}


def test_the_number_is_chosen_by_silhouette(index: str) -> None:
    with Store(index) as store:
        found = find_clusters(store)
    assert found.chosen.startswith("3 separate clearly (silhouette 0.")
    rows = np.random.default_rng(1).standard_normal((60, 4)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    numbers = np.random.default_rng(2).integers(0, 4, 60)
    numbers[:] = np.where(numbers == 3, 2, numbers)
    numbers[0] = 3  # a cluster of one
    expected = silhouette_score(rows, numbers, metric="cosine")
    assert _silhouette(rows, numbers, 0) == pytest.approx(expected, abs=1e-5)


def test_exemplars_are_medoids(index: str) -> None:
    from embedindex.likeness import join, load_files, space_of

    with Store(index) as store:
        found = find_clusters(store, count=3, exemplars=2)
        files = join(list(load_files(store, store.files(), space_of(store), 1)))
    place = {int(file_id): number for number, file_id in enumerate(files.ids)}
    for number, group in enumerate(found.groups):
        members = [file_id for file_id, groups in found.files.items() if groups[0][0] == number]
        rows = files.rows[[place[file_id] for file_id in members]]
        means = (rows @ rows.T).mean(axis=1)
        order = np.argsort(-means)[:2]
        assert [one.file_id for one in group.exemplars] == [members[int(at)] for at in order]
        assert [one.similarity for one in group.exemplars] == pytest.approx(means[order].tolist(), abs=1e-5)
        assert group.similarity == pytest.approx(float((rows @ rows.T).mean()), abs=1e-5)


def test_words_are_relative_to_the_library(index: str) -> None:
    words = {
        kind_of(group["exemplars"][0]["path"]): set(group["words"])
        for group in command("cluster", "--json").json["clusters"]
    }
    assert "bright" in words["hat"]
    assert "noisy" in words["hat"]
    assert "long" in words["pad"]
    assert "dark" in words["kick"]
    assert not {"bright", "noisy"} & (words["kick"] | words["pad"])


def test_labels_name_clusters_where_most_files_have_them(index: str) -> None:
    with StoreWriter(index) as store:
        labels = [
            FileLabel(record.id, Label("instrument", kind_of(record.text_path), "folders", 1.0))
            for record in store.files()
            if kind_of(record.text_path) != "pad" and int(Path(record.text_path).stem) < 4
        ]
        add_import(store, "folders", "", labels)
    found = {kind_of(group["exemplars"][0]["path"]): group for group in command("cluster", "--json").json["clusters"]}
    assert (found["hat"]["name"], found["kick"]["name"]) == ("hat", "kick")
    assert found["hat"]["label"] == {"key": "instrument", "value": "hat", "share": 1.0}
    assert found["pad"]["label"] is None
    assert found["pad"]["name"] == " ".join(found["pad"]["words"])


def test_two_clusters_never_have_one_name(index: str) -> None:
    names = [group["name"] for group in command("cluster", "--json", "-n", "12").json["clusters"]]
    assert len(set(names)) == len(names)


def test_what_a_person_said_stays_and_the_rest_can_be_undone(index: str) -> None:
    path = next(path for path in clusters_of(index) if kind_of(path) == "hat")
    assert command("label", "set", path, "cluster=mine").status == 0
    ran = command("cluster")
    assert "labelled 23 files" in ran.error
    assert clusters_of(index)[path] == "mine"
    with Store(index) as store:
        assert list(given_labels(store, "cluster").values()) == [["mine"]]  # clusters teach nothing
        labels = store.labels_of(record.id for record in store.files())
    assert {one.source for some in labels.values() for one in some} == {"human", "predicted:cluster"}
    assert command("label", "undo").status == 0
    assert sorted(set(clusters_of(index).values())) == ["", "mine"]


def test_grouping_again_replaces_what_was_found_before(index: str) -> None:
    command("cluster", "-n", "6")
    command("cluster", "-n", "2")
    assert len(set(clusters_of(index).values())) == 2
    assert command("cluster", "-n", "2", "--dry-run", "--key", "mood", "--json").json["import"] is None
    assert set(clusters_of(index, "mood").values()) == {""}


def test_the_same_seed_gives_the_same_clusters(index: str) -> None:
    outputs = [command("cluster", "-n", "7", "--csv", "--rng", "3", "--dry-run").text for _ in range(2)]
    assert outputs[0] == outputs[1]
    rows = list(csv.DictReader(outputs[0].splitlines()))
    assert len(rows) == 24
    assert all(float(row["share"]) == 1.0 for row in rows)


def test_moments_are_grouped_with_their_times(index: str) -> None:
    found = command("cluster", "--by", "windows", "-n", "3", "--json").json
    with Store(index) as store:
        assert found["members"] == store.counts().windows - store.counts().silent_windows
        durations = {record.text_path: record.duration or 0.0 for record in store.files()}
    for group in found["clusters"]:
        assert len({example["path"] for example in group["exemplars"]}) == 3
        for example in group["exemplars"]:
            assert 0 <= example["start"] < example["end"] <= durations[example["path"]] + 1.0


def test_many_windows_are_learnt_from_a_sample(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedindex.clusters.LEARNT_FROM", 12)
    monkeypatch.setattr("embedindex.clusters.HDBSCAN_ROWS", 15)
    for options in (("-n", "3"), ("--method", "hdbscan", "--min-size", "3")):
        found: Any = command("cluster", "--json", *options).json
        assert found["members"] == 24
        assert sum(group["size"] for group in found["clusters"]) + found["unassigned"] == 24


def test_refusals_say_what_to_do(index: str, tmp_path: Path) -> None:
    assert "only 24 files" in refusal("cluster", "-n", "25", status=2)
    assert "write auto, or a number" in refusal("cluster", "-n", "some", status=2)
    assert "leave --clusters out" in refusal("cluster", "-n", "3", "--method", "hdbscan", status=2)
    assert "choose files or windows" in refusal("cluster", "--by", "genre", status=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "sklearn.cluster", None)
        assert "pip install 'embedindex[clusters]'" in refusal("cluster", "--method", "hdbscan")
    assert json.loads(command("cluster", "-n", "1", "--json").text)["silhouette"] is None
