"""People who leave: skimmers, who stop a reply when they have seen enough, beside a reader who stays to the end.

    locust -f locustfiles/impatient.py --headless --users 100 --spawn-rate 10 --run-time 2m --host http://SERVER:8000

Who leaves closes the connection, and a server that notices stops working for nobody. `--patience 5s` makes everybody
leave where no output comes; `--cancel-rate` and `--cancel-after` do the same for any scenario.
"""

from locust import task

from tokenswarm.users import ChatUser


class Skimmer(ChatUser):
    """Has seen enough with the tenth token."""

    weight = 2

    @task
    def skim(self) -> None:
        self.chat(self.next_prompt(), name="skimmed", cancel_after="10t")


class Reader(ChatUser):
    """Reads every reply to its end."""

    weight = 1
