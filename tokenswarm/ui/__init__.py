"""What people see while a run lasts."""
