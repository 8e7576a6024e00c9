"""When load is sent: how much of it, and at which instants."""
