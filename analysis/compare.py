# %% [markdown]
# # Runs compared
# `python analysis/compare.py A B` says what changed from run A to run B, how surely, and whether the two may be
# compared; `--baseline 'runs/*-old' --candidate 'runs/*-new'` takes repeated runs of two sides together. `--fail-if`
# sets the exit status. It is `tokenswarm compare`, cell by cell; docs/compare.md explains the method.
# As a notebook, in an editor that knows `# %%`: put your own directories into ARGUMENTS.

# %%
from __future__ import annotations

import sys

from tokenswarm.errors import OptionError, RunDirectoryError
from tokenswarm.results.compare import command, differences, wording

ARGUMENTS = sys.argv[1:]

# %% [markdown]
# What was asked, and the two sides. Each run is reduced to what comparing needs: for each latency the values of the
# requests due in the steady window, each with the stretch of time that it belongs to; for each rate and share the
# amount in every stretch.

# %%
asked = command.parse(ARGUMENTS)
try:
    read = command.read(asked)
except (OptionError, RunDirectoryError) as error:
    sys.exit(command.refused(str(error)))
for run in read.baseline.runs:
    print(f"baseline {run.name}: " + ", ".join(f"{name} {sample.size:,.0f}" for name, sample in run.samples.items()))

# %% [markdown]
# Every metric's change with its interval, what speaks against the comparison, and the size of the effect.

# %%
for candidate in read.candidates:
    compared = differences.compare(read.baseline, candidate, confidence=asked.confidence / 100, seed=asked.seed)
    for difference in compared.differences:
        print(wording.line(difference))

# %% [markdown]
# The table, the limits of `--fail-if`, and the page with its charts.

# %%
print()
sys.exit(command.tell(asked, read))
