"""Cut a stretch out of a sound, faded at both ends: a seed for the demo's remix.

python examples/excerpt.py "demo/library/pieces/Slow Weather.flac" demo/seed.wav --start 60 --length 40
"""

from __future__ import annotations

import argparse

import numpy as np
import soundfile as sf

FADE_IN_S, FADE_OUT_S = 0.05, 4.0


def main() -> None:
    """Read the command line, and write the excerpt."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="any file that libsndfile reads")
    parser.add_argument("target", help="a WAV file")
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--length", type=float, default=40.0, metavar="SECONDS")
    options = parser.parse_args()
    rate = sf.info(options.source).samplerate
    x, _ = sf.read(options.source, round(options.length * rate), round(options.start * rate), always_2d=True)
    fade_in, fade_out = round(FADE_IN_S * rate), min(len(x), round(FADE_OUT_S * rate))
    x[:fade_in] *= np.linspace(0, 1, fade_in)[: len(x), None]
    x[len(x) - fade_out :] *= np.linspace(1, 0, fade_out)[:, None]
    sf.write(options.target, x, rate, subtype="PCM_24")


if __name__ == "__main__":
    main()
