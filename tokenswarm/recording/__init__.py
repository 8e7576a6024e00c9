"""Recording: what a run measured, on its way to the run directory. `recorder.py` gathers, `directory.py` writes."""
