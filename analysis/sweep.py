# %% [markdown]
# # How much load a server carries
# `python analysis/sweep.py RUN…` takes the load levels of one run (`--steps`, a search for capacity, edits in the web
# page) or of several, and holds throughput against latency: Pareto front, knee, goodput, energy, cost. It is
# `tokenswarm sweep`, cell by cell; docs/sweep.md explains the figures.
# As a notebook, in an editor that knows `# %%`: put your own directories into ARGUMENTS.

# %%
from __future__ import annotations

import sys

from tokenswarm.errors import AnalysisError, OptionError, RunDirectoryError
from tokenswarm.results.sweep import command, wording

ARGUMENTS = sys.argv[1:]

# %% [markdown]
# What was asked, and the runs: each is read once, and reduced to its load levels.

# %%
try:
    asked = command.parse(ARGUMENTS, "analysis/sweep.py")
    runs, unread = command.read(asked)
except (AnalysisError, OptionError, RunDirectoryError) as error:
    sys.exit(command.refused(str(error)))

# %% [markdown]
# Levels at the same load are taken together; each curve has its front, its knee and the level that answers.
# `sweep.curves[0].levels` has every figure.

# %%
sweep = command.swept(asked, runs, unread)
for curve in sweep.curves:
    for index in curve.front:
        level = curve.levels[index]
        latency = wording.latency(level, sweep.latency)
        print(f"front: {wording.load(level)}, {wording.throughput(sweep, level)}, {asked.latency.title} {latency} ms")

# %% [markdown]
# The answers, the table, and the page with its charts.

# %%
print()
sys.exit(command.tell(asked, sweep))
