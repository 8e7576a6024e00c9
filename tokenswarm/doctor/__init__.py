"""`tokenswarm doctor`: is this machine fit to measure, and would the model server answer?

`finding.py` what a check says and how it is shown, `machine.py` limits, `clocks.py` time, `server.py` the target,
`command.py` the command. Nothing here puts load on anything.
"""
