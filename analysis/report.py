# %% [markdown]
# # Report of one run
# `python analysis/report.py RUN` writes summary.json and report.html into the run directory and prints the table.
# Cell by cell, in an editor that knows `# %%`, it is a notebook: set RUN below and look at `run.rows` as you like.

# %%
from __future__ import annotations

import sys

from tokenswarm.errors import RunDirectoryError
from tokenswarm.results import console, phases, read, report

RUN = sys.argv[1] if len(sys.argv) == 2 else ""
if not RUN:
    sys.exit("usage: python analysis/report.py RUN   (RUN: a run directory, for example runs/20261120T134000Z-chat)")

# %%
try:
    run = read.load(RUN)
    written = report.write(run)
except RunDirectoryError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)

# %%
print(console.table(written.summary, written.report))

# %% [markdown]
# The cohort, as a data frame: the requests due in the steady window, one row each.

# %%
cohort = run.rows[phases.find(run).contain(phases.intended(run))]
print()
print(cohort[["ttft_ms", "tpot_ms", "e2e_ms", "output_tokens"]].describe().round(1).to_string())
