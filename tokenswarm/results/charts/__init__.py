"""Charts, a module for each subject: functions from what was measured to a plotly figure in plain dicts, or None."""
