"""The machine, its limits in a container, and processes that are watched."""
