"""Shared code of the scripts: options, the run with its data and output folder, reports, and several seeds."""
