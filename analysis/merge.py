# %% [markdown]
# # One timeline
# `python analysis/merge.py RUN` puts everything that a run left into one table with a row a second: users, requests,
# tokens, latencies, what the client's processes, GPUs and machines did, what the server said of itself.
# `--help` tells the rest: several runs, Parquet, Locust's own --csv, hardware that somebody else recorded.

# %%
from __future__ import annotations

import sys

from tokenswarm.results.merge import command as merge_command

if __name__ == "__main__" and "ipykernel" not in sys.modules:
    sys.exit(merge_command.main(program="python analysis/merge.py"))

# %% [markdown]
# From here on it is a notebook: set RUN, and run the cells in an editor that knows `# %%`.

# %%
RUN = "runs/20261120T134000Z-chat"
one = merge_command.merged(RUN, merge_command.parser().parse_args([RUN, "--every", "1s"]))
print(*one.defects, sep="\n")

# %% [markdown]
# What was not measured is NaN, so that means and correlations are over what was.

# %%
print(one.table.describe().round(2).T.to_string())

# %% [markdown]
# Does the server slow down with the number of requests in flight, and what does the power do?

# %%
power = [name for name in map(str, one.table) if name.endswith("/power_watts")]
print(one.table[["in_flight", "ttft_p50_ms", "output_tokens_per_s", *power]].corr().round(2).to_string())
