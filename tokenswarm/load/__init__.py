"""When requests go out, how many, and until when: shapes, arrivals, ends, users who leave, the search for capacity."""
