"""The files of a run directory as data frames, however damaged."""
