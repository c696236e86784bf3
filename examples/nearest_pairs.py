"""Which two sounds of a folder are most alike? Makes an index of it and compares all with all.

python examples/nearest_pairs.py ~/samples/drums
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np

import embedindex


def main() -> None:
    """Scan the folder and print the ten pairs of files that are most alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--index", help="keep the index there (else it is forgotten)")
    parser.add_argument("--model", default="spectral")
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as temporary,
        embedindex.Index.make(
            options.index or temporary, options.folder, model=options.model, workers=options.workers
        ) as index,
    ):
        files, means = index.matrix()
    standard = (means - means.mean(axis=0)) / (means.std(axis=0) + 1e-9)
    standard /= np.linalg.norm(standard, axis=1, keepdims=True) + 1e-9
    likeness = np.triu(standard @ standard.T, k=1)
    for pair in np.argsort(-likeness, axis=None)[:10]:
        first, second = divmod(int(pair), len(files))
        if first < second:
            print(f"{likeness[first, second]:.3f}  {files[first].text_path}  {files[second].text_path}")


if __name__ == "__main__":
    main()
