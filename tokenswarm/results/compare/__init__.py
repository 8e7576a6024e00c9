"""Two sides of runs held against each other: what changed, how surely, and whether they may be compared at all.

    sides.observe(directory) -> Observed        what comparing needs of one run; several make a Side
    differences.compare(baseline, candidate)    every metric's change with its interval, warnings, effect sizes
    gate.parse(text), gate.judge(…)             --fail-if
    console.text(…), page.write(…)              for people; `differences.Comparison` itself is what --json holds

The statistics are in `bootstrap.py`, numpy only. docs/compare.md explains the method.
"""
