"""Reads a finished run and says what it means: phases, percentiles, throughput, verdict, console table, report.

    read.load(directory) -> Run           the directory as data frames, with every defect found in it
    phases.find(run) -> Phases            ramp, steady and drain windows
    summarise.summarise(run) -> dict      what `summary.json` holds
    console.table(summary) -> str         for a terminal
    report.write(directory) -> Written    summary.json and report.html
    merge.timeline(run, …) -> DataFrame   a row a second: load, latency, hardware, server
    energy.figures(run, phases) -> dict   joules and cost a token

Loads no Locust and no gevent, so that it runs beside a load test or long after it, on any machine.
"""
