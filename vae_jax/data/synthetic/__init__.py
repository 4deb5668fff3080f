"""Synthetic and bundled data sets that need no download; `load` imports them by name."""
