"""Up evenly to --users, a while there, then three times as many, and back: does the server recover from a spike?

    locust -f locustfiles/shape.py --headless --users 50 --run-time 4m --warmup 10s --host http://SERVER:8000

The report has a line for each of the three levels. --run-time is shared out between them; --warmup is left out of the
figures of each.
"""

from typing import Any

from tokenswarm.load.shapes import Levels, Ramp, Spike
from tokenswarm.users import ChatUser


class Chat(ChatUser):
    """Prompts of the bundled workload, without a pause between them."""


class RampAndSpike(Levels):
    """A ramp, and a spike on top of it. Times count from when the users are there, so no level is cut short."""

    use_common_options = True  # --users and --run-time are the shape's to read

    def plan(self: Any) -> Any:
        """The levels of both, one after another."""
        asked = self.runner.environment.parsed_options
        users, quarter = asked.num_users or 50, (asked.run_time or 240) / 4
        ramp = Ramp(users=users, seconds=quarter, hold=quarter)
        spike = Spike(base=users, peak=3 * users, before=0, lasting=quarter, after=quarter)
        return ramp.plan() + spike.plan()
