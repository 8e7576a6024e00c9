"""Conversations over several turns: the server's own replies go along with each next question.

    locust -f locustfiles/conversation.py --headless --users 20 --run-time 60s --host http://SERVER:8000

Each turn is a row, with the conversation's id and the turn's number: prompts grow from turn to turn, and so does what a
prefix cache can save.
"""

from locust import between, task

from tokenswarm.users import ChatUser

FOLLOW_UPS = ("Why?", "Give me an example.", "Say it in one sentence.", "现在用中文说一遍。")


class Talker(ChatUser):
    """Asks one of the workload's questions, then goes on about it; the latest three turns are carried along."""

    wait_time = between(0.1, 0.5)

    @task
    def talk(self) -> None:
        question = self.next_prompt().messages[-1]["content"]
        conversation = self.conversation("You are a patient teacher.", history_turns=3)
        for number, prompt in enumerate((question, *FOLLOW_UPS), 1):
            reply = conversation.say(prompt, name=f"turn {number}")
            if not reply.ok:
                return
