# %% [markdown]
# # Report of one run
# `python analysis/report.py RUN` writes summary.json and report.html into the run directory and prints the table; with
# `--lang zh` both are in Chinese.

# %%
from __future__ import annotations

import sys

from tokenswarm.results import __main__ as report_command
from tokenswarm.results import console, phases, read, summarise

if __name__ == "__main__" and "ipykernel" not in sys.modules:
    sys.exit(report_command.main(program="python analysis/report.py"))

# %% [markdown]
# From here on it is a notebook: set RUN, and run the cells in an editor that knows `# %%`.

# %%
RUN = "runs/20261120T134000Z-chat"
run = read.load(RUN)
print(console.table(summarise.summarise(run)))

# %% [markdown]
# The cohort, as a data frame: the requests due in the steady window, one row each.

# %%
cohort = run.rows[phases.find(run).contain(phases.intended(run))]
print(cohort[["ttft_ms", "tpot_ms", "e2e_ms", "output_tokens"]].describe().round(1).to_string())
