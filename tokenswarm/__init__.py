"""tokenswarm: a load test suite for LLM servers, on Locust, whose numbers are true.

A locustfile imports `tokenswarm.users`; a finished run is read with `tokenswarm.results`. This module imports
neither, so that the parts that must not load Locust (results, simulator) do not.
"""

__version__ = "0.1.0"
