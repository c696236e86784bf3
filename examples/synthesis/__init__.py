"""Sounds made from nothing but numpy, for the demo library and for tests that want something like music.

Conventions: signals are floats around ±1, mono `(n,)` or stereo `(n, 2)`; times in seconds, pitches in hertz, levels in
dB; chance comes in as a seeded `numpy.random.Generator`, so the same call makes the same sound.
"""
