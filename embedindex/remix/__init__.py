"""Remix: replace every unit of a seed by a similar piece of the library, and render what comes of it.

The path of the sound: `units` cuts the seed, `candidates` asks the index, `select` chooses, `render` plays the recipe.
"""
