"""Small tracks: near enough to the exact ones, kept beside the index, and never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from embedindex.remix.coarse import FILE_NAME, CoarseStore, CoarseTrack, grow, shrink
from embedindex.remix.frames import BRIGHTNESS, CEPSTRA, LEVEL, PITCH, describe
from embedindex.remix.options import RemixOptions
from embedindex.remix.recipe import to_json
from embedindex.remix.tracks import TrackCache
from embedindex.remix.units import parse_units
from tests.command_line import command
from tests.indexing import one, write_samples
from tests.remixing import RATE, remix, scan_spectral, texture, write_textures
from tests.sounds import sine


def test_a_steady_sound_is_told_nearly_as_it_is() -> None:
    track = describe(sine(440, 3, RATE, 0.2))
    first, back = grow(shrink(track), 20, len(track.frames) - 20)
    error = np.abs(back.frames - track.frames[first : first + len(back.frames)])
    assert error[:, LEVEL].max() <= 0.51
    assert error[:, PITCH].max() <= 0.3
    assert error[:, CEPSTRA].max() <= 0.13
    assert error[:, BRIGHTNESS].max() <= 0.03


def test_19_bytes_tell_93_ms_and_23_of_short_sounds() -> None:
    for duration_s, frames in ((60, 8), (6, 2)):
        small = shrink(describe(texture(duration_s, 1)))
        assert small.cells.nbytes / duration_s == pytest.approx(19 / (frames * 256 / 22050), rel=0.01)


@pytest.mark.parametrize("samples", [0, 1, 300, 5000])
def test_the_shortest_tracks_come_back_with_their_length(samples: int) -> None:
    track = describe(texture(1, 1)[:samples])
    first, back = grow(shrink(track), -5, 10_000)
    assert (first, len(back.frames)) == (0, len(track.frames))


def test_a_part_grows_as_it_does_in_the_whole() -> None:
    small = shrink(describe(texture(5, 2)))
    _, whole = grow(small, 0, small.frames)
    for low, high in ((0, 9), (13, 14), (100, 300), (small.frames - 3, small.frames)):
        first, part = grow(small, low, high)
        np.testing.assert_allclose(part.frames, whole.frames[first : first + len(part.frames)], atol=1e-4)


def test_tracks_are_kept_and_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    small = shrink(describe(texture(1, 3)))
    with CoarseStore(str(tmp_path)) as kept:
        assert kept.get(b"x" * 16) is None
        kept.put(b"x" * 16, small)
    with CoarseStore(str(tmp_path)) as kept:
        back = kept.get(b"x" * 16)
        assert isinstance(back, CoarseTrack)
        np.testing.assert_array_equal(back.cells, small.cells)
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with CoarseStore(str(tmp_path)) as kept:
        kept.put(b"x" * 16, small)
    with CoarseStore(str(tmp_path)) as kept:
        assert kept.get(b"x" * 16) is not None


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    with CoarseStore(str(tmp_path / "not there")) as kept:
        kept.put(b"x" * 16, shrink(describe(texture(1, 3))))
        assert kept.get(b"x" * 16) is not None


def test_what_was_kept_makes_no_difference(index: str, library: Path, tmp_path: Path) -> None:
    """Also for files too long for exact tracks."""
    write_textures(library, 3)
    write_samples(library / "long.wav", texture(70, 8), RATE)
    scan_spectral(index, library)
    seed = write_samples(tmp_path / "seed.wav", texture(4, 1), RATE)
    options = RemixOptions(cutting=parse_units("grid:400ms"), include=("long.wav", "texture1.wav"), max_per_file=1.0)
    first = to_json(remix(index, seed, options))
    assert os.path.getsize(os.path.join(index, FILE_NAME)) > 0
    assert to_json(remix(index, seed, options)) == first


def test_files_are_described_once_and_said_to_be(index: str, library: Path, tmp_path: Path) -> None:
    from embedindex.audio import AudioReader
    from embedindex.errors import AudioError
    from embedindex.remix.frames import describe_blocks

    paths = write_textures(library, 3)
    write_samples(library / "bad.wav", texture(1, 9), RATE)
    scan_spectral(index, library)
    bad = one(index, library / "bad.wav")
    (library / "bad.wav").write_bytes(b"R" * bad.size)
    records = [one(index, path) for path in paths]
    told: list[tuple[int, int]] = []
    with CoarseStore(str(tmp_path)) as kept:
        cache = TrackCache(kept)
        cache.fill([*records, bad, records[0]], lambda done, total: told.append((done, total)))
        assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
        with pytest.raises(AudioError):
            cache.coarse(bad, 0, 10)
    with CoarseStore(str(tmp_path)) as kept, AudioReader(paths[1], sample_rate=RATE) as reader:
        TrackCache(kept).fill(records, lambda done, total: told.append((done, total)))
        assert len(told) == 4
        wanted = shrink(describe_blocks(reader.blocks()))
        back = kept.get(records[1].content_hash or b"")
        assert back is not None
        np.testing.assert_array_equal(back.cells, wanted.cells)


def test_a_seed_within_a_long_file_is_found_to_the_sample(index: str, library: Path, tmp_path: Path) -> None:
    samples = texture(80, 5)
    long = write_samples(library / "long.wav", samples, RATE)
    write_textures(library, 2)
    scan_spectral(index, library)
    start = round(33.337 * RATE)
    seed = write_samples(tmp_path / "seed.wav", samples[start : start + 4 * RATE], RATE)
    options = RemixOptions(cutting=parse_units("grid:500ms"), allow_self=True, no_repeat=0, max_per_file=1.0)
    recipe = remix(index, seed, options)
    exact = [
        event.source_start == start + event.start
        for event in recipe.events
        if event.source is not None and recipe.sources[event.source].path == os.fsencode(long)
    ]
    assert sum(exact) >= 0.75 * len(recipe.events)


def test_a_scan_describes_files_on_demand(index: str, library: Path) -> None:
    paths = write_textures(library, 3, 1.0)
    assert command("scan", library, "--index", index, "--model", "spectral", "-q").status == 0
    assert not os.path.exists(os.path.join(index, FILE_NAME))
    ran = command("scan", library, "--index", index, "--remix", "-q")
    assert (ran.status, ran.error) == (0, "")
    with CoarseStore(index) as kept:
        assert all(kept.has(one(index, path).content_hash or b"") for path in paths)
        assert not kept.has(b"x" * 16)
