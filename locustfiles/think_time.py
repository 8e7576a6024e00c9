"""People, not machines: three readers, who take their time between two questions, to each impatient one.

    locust -f locustfiles/think_time.py --headless --users 200 --spawn-rate 10 --run-time 5m --host http://SERVER:8000

Users who wait are not in flight: N users with think time load a server less than N without.
"""

from locust import between, constant

from tokenswarm.users import ChatUser


class Reader(ChatUser):
    """Reads the reply for 5 to 20 seconds before the next question."""

    weight = 3
    wait_time = between(5, 20)


class Impatient(ChatUser):
    """Asks again after one second."""

    weight = 1
    wait_time = constant(1)
