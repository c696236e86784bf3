"""Two models as one: what its vectors are, how they are compared, and that everything works on an index of them."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soxr

from embedindex.arrays import Float32Array, Float64Array
from embedindex.embed import embed_blocks, hop_samples
from embedindex.errors import ModelMismatchError, UsageError
from embedindex.index import load_view
from embedindex.merge import merge
from embedindex.models import Model, ModelIdentity, ModelRequest, load_model, same_space
from embedindex.models.base import Block
from embedindex.models.catalogue import catalogue, find_entry
from embedindex.models.fused import NETWORK_SHARE, fuse
from embedindex.query import QueryMaker
from embedindex.search import search
from embedindex.space import Space
from embedindex.store import Store
from embedindex.verify import Problem, verify
from tests.command_line import command, refusal
from tests.indexing import TINY, TINY_RATE, one, run_scan, write_samples
from tests.sounds import chirp, drum_hit, noise, pad, sine

FUSED = ModelRequest("tiny+spectral")
SPECTRAL_RATE = 22050


def sounds() -> dict[str, Float32Array]:
    return {
        "chirp.wav": chirp(100, 3000, 3.0, TINY_RATE),
        "drum.wav": drum_hit("snare", sample_rate=TINY_RATE)[: TINY_RATE // 2],
        "noise.wav": noise(2.5, TINY_RATE, seed=1),
        "pad.wav": pad([220.0, 277.2, 329.6], 4.0, TINY_RATE),
        "tone.wav": sine(880.0, 1.2, TINY_RATE),
    }


@pytest.fixture
def filled(library: Path, index: str) -> str:
    """An index of five sounds by the fused test model."""
    for name, samples in sounds().items():
        write_samples(library / name, samples)
    run_scan(index, library, request=FUSED)
    return index


def windows_of(samples: Float32Array, window: int, hop: int) -> list[Float32Array]:
    """Return what is left of a sound at each start of a window, the same as the scan of 1-second windows has."""
    starts = range(0, max(1, len(samples) - window // 10 + 1), hop)
    return [samples[start : start + window] for start in starts]


def done(*arguments: str | Path) -> None:
    ran = command(*arguments)
    assert ran.status == 0, ran.error


def problems(index: str) -> tuple[Problem, ...]:
    with Store(index) as store:
        return verify(store).problems


def unit(rows: Float64Array) -> Float64Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def test_score_is_the_weighted_mean_of_the_cosines_that_both_models_give(filled: str, library: Path) -> None:
    tiny, spectral = load_model(TINY), load_model(ModelRequest("spectral"))
    heard: list[tuple[Float32Array, Float32Array]] = []
    with Store(filled) as store:
        view = load_view(store)
        records = sorted(store.files(), key=lambda record: record.path)
        stored = np.concatenate([store.vectors_of(record) for record in records])
        for record in records:
            samples = sounds()[Path(record.text_path).name]
            samples = samples / np.abs(samples).max()
            for left in windows_of(samples, TINY_RATE, hop_samples(record.hop_s or 0.0, TINY_RATE)):
                at_second = soxr.resample(np.pad(left, (0, TINY_RATE - len(left))), TINY_RATE, SPECTRAL_RATE)
                heard.append((np.resize(np.trim_zeros(left, "b"), TINY_RATE), at_second[:SPECTRAL_RATE]))
    first = tiny.embed(np.stack([pair[0] for pair in heard])).astype(np.float64)
    second = spectral.embed(np.stack([pair[1] for pair in heard])).astype(np.float64)
    assert len(heard) == len(stored) > 20
    np.testing.assert_allclose(stored[:, :16], first, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(stored[:, 16:], second, rtol=2e-3, atol=2e-2)
    first, second = stored[:, :16].astype(np.float64), stored[:, 16:].astype(np.float64)
    varying = second.std(axis=0) > 1e-6 * np.maximum(np.abs(second.mean(axis=0)), 1.0)
    scores = np.where(varying, (second - second.mean(axis=0)) / np.where(varying, second.std(axis=0), 1.0), 0.0)
    one_by_one = [unit(first), unit(np.clip(scores, -3.0, 3.0))]
    wanted = NETWORK_SHARE * one_by_one[0] @ one_by_one[0].T + (1 - NETWORK_SHARE) * one_by_one[1] @ one_by_one[1].T
    rows = view.space.apply(stored)
    np.testing.assert_allclose(rows @ rows.T, wanted, atol=1e-5)
    assert np.ptp(wanted) > 0.5


def test_short_sound_is_repeated_for_the_network_and_followed_by_silence_for_the_descriptors() -> None:
    tiny, spectral = load_model(TINY), load_model(ModelRequest("spectral"))
    hit = np.append(drum_hit("snare", sample_rate=TINY_RATE)[:1999], np.float32(0.25)) * np.float32(2.0)
    model = fuse(tiny, spectral)
    full = noise(1.0, TINY_RATE, seed=3)
    vectors = model.embed(np.stack([np.pad(hit, (0, TINY_RATE - len(hit))), full]))
    np.testing.assert_allclose(vectors[:, :16], tiny.embed(np.stack([np.resize(hit, TINY_RATE), full])), rtol=1e-6)
    padded = np.stack([np.pad(hit, (0, TINY_RATE - len(hit))), full])
    heard = np.stack([soxr.resample(window, TINY_RATE, SPECTRAL_RATE) for window in padded])
    np.testing.assert_allclose(vectors[:, 16:], spectral.embed(heard), rtol=1e-4, atol=1e-4)
    assert vectors.shape == (2, model.identity.dimension)


class LongWindows:
    """The test model's first band of windows of two seconds at 44.1 kHz, filled with zeros."""

    default_hop_s = 2.0

    def __init__(self, window_samples: int) -> None:
        self.identity = ModelIdentity("long", 44100, window_samples, 1, filling="zero")

    def embed(self, windows: Float32Array) -> Float32Array:
        return np.asarray(np.abs(windows).sum(axis=1, keepdims=True), np.float32)


def test_descriptors_are_those_of_a_long_windows_first_second_whatever_comes_behind() -> None:
    spectral = load_model(ModelRequest("spectral"))
    model: Model = fuse(LongWindows(88200), spectral)
    first = chirp(100, 3000, 1.1, 44100)
    windows = np.stack([np.append(first, tail)[:88200] for tail in (noise(1.0, 44100), sine(200.0, 1.0, 44100))])
    vectors = model.embed(windows)
    np.testing.assert_allclose(vectors[0, 1:], vectors[1, 1:], rtol=1e-4, atol=1e-4)
    alone = spectral.embed(soxr.resample(first, 44100, SPECTRAL_RATE)[None, :SPECTRAL_RATE])
    np.testing.assert_allclose(vectors[:1, 1:], alone, rtol=1e-3, atol=1e-3)
    assert vectors[0, 0] != vectors[1, 0]


def test_a_window_begins_every_second_or_as_often_as_the_network_wants() -> None:
    spectral = load_model(ModelRequest("spectral"))
    assert fuse(LongWindows(88200), spectral).default_hop_s == 1.0
    assert load_model(FUSED).default_hop_s == load_model(TINY).default_hop_s == 0.5


def test_windows_too_short_for_the_descriptors_are_refused() -> None:
    with pytest.raises(UsageError, match=r"long has windows of 0\.5 s, too short for those of spectral"):
        fuse(LongWindows(22050), load_model(ModelRequest("spectral")))


@pytest.mark.parametrize("name", ["spectral+tiny", "spectral+spectral", "+spectral", "tiny+", "tiny+spectral+spectral"])
def test_what_cannot_be_fused_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(UsageError, match=r"what can be fused is a network and spectral, as aisfx\+spectral"):
        load_model(ModelRequest(name))
    with pytest.raises(UsageError):
        find_entry(name)


def test_identity_survives_json_and_those_of_single_models_stay_what_they_were() -> None:
    identity = load_model(FUSED).identity
    assert ModelIdentity.from_json(identity.to_json()) == identity
    assert identity.dimension == 16 + 207
    assert [block.dimension for block in identity.blocks] == [16, 207]
    single = {
        "name": "m", "sample_rate": 8000, "window_samples": 8000, "dimension": 3, "weights_sha256": None,
        "level": "peak", "filling": "tile", "standardise": True, "parameters": {"version": 1},
    }  # fmt: skip
    text = json.dumps(single, sort_keys=True, separators=(",", ":"))
    old = ModelIdentity("m", 8000, 8000, 3, standardise=True, parameters={"version": 1})
    assert old.fingerprint == sha256(text.encode()).hexdigest()
    assert ModelIdentity.from_json(text) == old
    with pytest.raises(ValueError, match="do not add up"):
        replace(old, blocks=(Block(2, False, 1.0),))


def test_precisions_that_agree_may_be_mixed_and_the_version_of_either_half_counts() -> None:
    fp32, int8 = (load_model(replace(FUSED, precision=precision)).identity for precision in ("fp32", "int8"))
    assert fp32 != int8
    assert same_space(fp32, int8)
    disagreeing = load_model(replace(FUSED, precision="int8", options=(("agrees", "no"),))).identity
    assert not same_space(fp32, disagreeing)
    assert not same_space(fp32, load_model(replace(FUSED, options=(("version", "2"),))).identity)
    assert not same_space(fp32, load_model(TINY).identity)
    other = replace(fp32, parameters={**fp32.parameters, "spectral_version": 0})
    assert not same_space(fp32, other)


def test_altered_copy_finds_its_original_and_its_place(filled: str, library: Path, tmp_path: Path) -> None:
    clip = write_samples(tmp_path / "clip.wav", sounds()["chirp.wav"][TINY_RATE : 5 * TINY_RATE // 2] * np.float32(0.3))
    with Store(filled) as store:
        view = load_view(store)
        hit = search(store, view, [QueryMaker(store, view.model).from_file(str(clip))], k=1)[0]
        own = search(
            store, view, [QueryMaker(store, view.model).from_file(str(library / "pad.wav"))], include_self=True
        )
    assert Path(hit.file.text_path).name == "chirp.wav"
    assert hit.start_s == pytest.approx(1.0, abs=0.26)
    assert hit.score > 0.9
    assert own[0].score == pytest.approx(1.0, abs=1e-3)


def test_index_is_kept_caught_up_with_verified_and_rebuilt(filled: str, library: Path) -> None:
    write_samples(library / "more.wav", noise(1.0, TINY_RATE, seed=9))
    run_scan(filled, library, request=None)
    with Store(filled) as store:
        data = store.space()
        assert data is not None
        kept = Space.from_bytes(data)
        assert load_view(store).space.fingerprint == kept.fingerprint
        assert [part.dimension for part in kept.parts] == [16, 207]
    assert problems(filled) == ()
    done("rebuild", "--index", filled)
    assert problems(filled) == ()
    assert command("info", "--json", "--index", filled).json["model"]["name"] == "tiny+spectral"


def test_index_of_a_fused_model_refuses_others_and_is_merged_with_its_like(
    filled: str, library: Path, tmp_path: Path
) -> None:
    for request in (TINY, ModelRequest("spectral"), replace(FUSED, options=(("version", "2"),))):
        with pytest.raises(ModelMismatchError):
            run_scan(filled, library, request=request)
    more, other, plain = tmp_path / "more", str(tmp_path / "other"), str(tmp_path / "plain")
    more.mkdir()
    write_samples(more / "noise.wav", noise(1.5, TINY_RATE, seed=7))
    run_scan(other, more, request=FUSED)
    run_scan(plain, more)
    merge(filled, [other])
    assert one(filled, more / "noise.wav").status == "ok"
    assert problems(filled) == ()
    with pytest.raises(ModelMismatchError):
        merge(filled, [plain])


def test_command_line_works_on_it_from_scan_to_remix(library: Path, index: str, tmp_path: Path) -> None:
    for number in range(4):
        write_samples(library / f"noise_{number}.wav", noise(1.0, TINY_RATE, number))
        write_samples(library / f"tone_{number}.wav", sine(300.0 + 9 * number, 1.0, TINY_RATE))
    done("scan", library, "--model", "tiny+spectral", "--index", index, "--workers", "1")
    done("label", "import", "--index", index, "--pattern", r"(noise|tone)_", "--key", "kind")
    judged = command("evaluate", "--index", index, "--key", "kind", "--json").json
    assert judged["model"] == "tiny+spectral"
    assert judged["leave_one_out"]["accuracy"] == 1.0
    asked = write_samples(tmp_path / "asked.wav", noise(1.0, TINY_RATE, seed=99))
    found = command("genre", asked, "--key", "kind", "--index", index, "--json").json
    assert "noise" in json.dumps(found)
    done("remix", asked, "-o", tmp_path / "remix.wav", "--index", index)
    done("embed", asked, "--model", "tiny+spectral", "-t", "0.5", "-o", tmp_path)
    with np.load(tmp_path / "asked.npz") as arrays:
        assert arrays["embedding"].shape == (len(arrays["timestamps"]), 16 + 207)
    assert "what can be fused" in refusal(
        "scan", library, "--model", "spectral+tiny", "--index", tmp_path / "x", status=2
    )


def test_list_of_models_has_them_beside_their_networks() -> None:
    entries = {entry.request: entry for entry in catalogue()}
    for network in ("openl3", "aisfx"):
        fused = entries[f"{network}+spectral"]
        assert (fused.dimension, fused.sample_rate) == (512 + 207, entries[network].sample_rate)
        assert (fused.here, fused.weights) == (entries[network].here, entries[network].weights)
    assert find_entry("openl3+spectral:content_type=env").kind == ("mel256", "env")


def test_blocks_are_told_apart_in_every_combination_of_silence() -> None:
    """A block without a direction adds nothing to a score."""
    space = Space.from_bytes(blocks_space().to_bytes())
    rows = space.apply(np.array([[3, 4, 0, 0], [0, 0, 0, 2], [3, 4, 0, 2], [0, 0, 0, 0]], np.float32))
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(lengths, [np.sqrt(0.25), np.sqrt(0.75), 1.0, 0.0], atol=1e-6)
    expected = {(0, 1): 0.0, (0, 2): 0.25, (1, 2): 0.75, (0, 3): 0.0, (1, 3): 0.0, (2, 3): 0.0}
    for pair in combinations(range(4), 2):
        assert rows[pair[0]] @ rows[pair[1]] == pytest.approx(expected[pair], abs=1e-6)


def blocks_space() -> Space:
    from embedindex.space import Part

    return Space("blocks", parts=(Part(2, 0.25, Space("plain")), Part(2, 0.75, Space("plain"))))


def test_embedding_a_file_gives_what_the_model_gives_for_its_windows() -> None:
    model = load_model(FUSED)
    samples = sounds()["pad.wav"]
    vectors, silent = embed_blocks([samples], float(np.abs(samples).max()), model, TINY_RATE)
    assert silent == 0
    wanted = model.embed(np.stack(np.split(samples / np.abs(samples).max(), 4)))
    np.testing.assert_allclose(vectors[:4], wanted, rtol=1e-4, atol=1e-4)
