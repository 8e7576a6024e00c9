"""When requests are due: arrivals of the open loop, think time, and what both make of a user's tasks."""
