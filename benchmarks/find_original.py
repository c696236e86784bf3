"""Does a damaged copy find its original? Files of an index, cut at the start and re-encoded to MP3, as queries.

    python benchmarks/find_original.py --index DIR [--count 20] [--seed 1] [--cut 0.3] [--bit-rate 128]

Prints how many of the copies have their original as first hit, and the rank of the others. Files shorter than the cut
plus 0.2 s are not drawn.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from altered import encode_mp3

from embedindex.audio import read_audio
from embedindex.index import load_view
from embedindex.query import QueryMaker
from embedindex.search import search
from embedindex.store import Store


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cut", type=float, default=0.3, help="seconds removed at the start")
    parser.add_argument("--bit-rate", type=int, default=128, help="kbit/s")
    parser.add_argument("--path", default="*", help="draw only files whose path matches this glob")
    options = parser.parse_args()
    found = 0
    with Store(options.index) as store, tempfile.TemporaryDirectory() as folder:
        view = load_view(store)
        maker = QueryMaker(store, view.model)
        records = list(
            store.files("status = 'ok' AND duration > ? AND path_text GLOB ?", (options.cut + 0.2, options.path))
        )
        drawn = random.Random(options.seed).sample(records, min(options.count, len(records)))
        for record in drawn:
            samples, facts = read_audio(record.path, mono=False)
            samples = samples.reshape(len(samples), -1)[round(options.cut * facts.sample_rate) :, :2]
            rate = facts.sample_rate if facts.sample_rate in (32000, 44100, 48000, 22050, 24000, 16000) else 44100
            copy = Path(folder, "copy.mp3")
            encode_mp3(copy, samples, rate, options.bit_rate * 1000)
            hits = search(store, view, [maker.from_file(str(copy))], k=50)
            rank = next((hit.rank for hit in hits if hit.file.id == record.id), None)
            found += rank == 1
            if rank != 1:
                first = hits[0].file.text_path if hits else "nothing"
                print(f"rank {rank or 'over 50'}: {record.text_path} ({record.duration:.1f} s); first is {first}")
    print(f"{found} of {len(drawn)} copies found their original first ({options.bit_rate} kbit/s, {options.cut} s cut)")


if __name__ == "__main__":
    main()
