"""The sidecar: what the GPUs and the machine do, for Prometheus and for the reports of tokenswarm.

It stands alone: neither Locust nor tokenswarm is imported anywhere in it, since it runs where the model server does.
"""

__version__ = "0.1.0"
