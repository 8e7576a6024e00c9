"""A ramp in four equal stairs up to --users, over --run-time: where does the server begin to slow down?

    locust -f locustfiles/shape.py --headless --users 200 --spawn-rate 50 --run-time 4m --warmup 10s \
        --host http://SERVER:8000

The report has a line for each stair. Make stairs longer than --warmup, which is left out of the figures of each.
"""

from math import ceil
from typing import Any

from locust import LoadTestShape

from tokenswarm.users import ChatUser

STAIRS = 4


class Chat(ChatUser):
    """Prompts of the bundled workload, without a pause between them."""


class Stairs(LoadTestShape):
    """A quarter of the users for a quarter of the time, then half of them, and so on."""

    use_common_options = True  # --users, --spawn-rate and --run-time are the shape's to read

    def tick(self: Any) -> tuple[int, float] | None:
        """(users, spawn rate) as they should be now; None ends the run."""
        asked = self.runner.environment.parsed_options
        users, spawn_rate, run_time = asked.num_users or 100, asked.spawn_rate or 50, asked.run_time or 240
        stair = int(self.get_run_time() / run_time * STAIRS) + 1
        return None if stair > STAIRS else (ceil(users * stair / STAIRS), spawn_rate)
