"""Mixed traffic: people who chat, and an application that puts long passages before short questions.

    locust -f locustfiles/mixed.py --headless --users 50 --spawn-rate 10 --run-time 60s --host http://SERVER:8000

Each class has options of its own, under the names of the command line's, over what that says for all. The report tells
the classes apart; --tokenizer makes the lengths exact.
"""

from locust import between

from tokenswarm.users import ChatUser


class Chat(ChatUser):
    """Four in five: a question of the bundled ones, an answer as long as it comes, time to read it."""

    weight = 4
    wait_time = between(1, 3)
    options = {"output_tokens": "normal:200,50"}


class Rag(ChatUser):
    """One in five: instructions that all have in common, thousands of tokens of passages, a short answer."""

    weight = 1
    options = {
        "shared_prefix_tokens": 500,
        "input_tokens": "lognormal:3000,1000,500-8000",
        "output_tokens": "uniform:16-64",
    }
