# %% [markdown]
# # Joules per token
# `python analysis/energy.py RUN` tells what the GPUs used for each token, gross and net of what they use when idle, and
# with `--price-per-gpu-hour` what a million tokens cost. The run must have been made with `--hardware`.

# %%
from __future__ import annotations

import sys

from tokenswarm.results import energy_command, phases, read
from tokenswarm.results.figures import energy

if __name__ == "__main__" and "ipykernel" not in sys.modules:
    sys.exit(energy_command.main(program="python analysis/energy.py"))

# %% [markdown]
# From here on it is a notebook: set RUN, and run the cells in an editor that knows `# %%`.

# %%
RUN = "runs/20261120T134000Z-chat"
run = read.load(RUN)
told = energy.figures(run, phases.find(run), energy.Wish(idle_watts=None, price_per_gpu_hour=None))
print(*run.defects, *told["notes"], sep="\n")

# %% [markdown]
# Each steady window by itself: with steps of users, how tokens per joule grow with the load.

# %%
for window in told["windows"]:
    print(window["users"], window["joules_per_output_token"], window["output_tokens_per_joule"])
