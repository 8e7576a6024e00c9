"""What is sent: a run's prompts and their order, decided by the seed. Not when (`load/`), nor how (`protocols/`)."""
