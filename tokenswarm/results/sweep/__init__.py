"""How much load a server carries, and what that costs: the load levels of one or several runs held against each other.

    observe.observe(directory, wish) -> Observed      every steady window of a run as a `Part`
    levels.pooled(parts) -> Level                     what was measured at one load, over repeated runs
    curve.sweep(observed, …) -> Sweep                 series of levels with their Pareto front, knee and best level
    table.text(…), table.as_json(…), page.render(…)   for people and programs

The geometry is in `pareto.py` and `knee.py`, numbers only. docs/sweep.md explains the method.
"""
