"""When requests are sent: how many users there are, and from when to when."""
