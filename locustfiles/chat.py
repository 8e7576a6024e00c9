"""Streaming chats with any OpenAI-compatible server: each user sends one prompt after another.

    locust -f locustfiles/chat.py --headless --users 100 --spawn-rate 20 --run-time 60s --host http://SERVER:8000

Without --host it goes to the embedded simulator.
"""

from tokenswarm.users import ChatUser


class Chat(ChatUser):
    """Prompts of the bundled workload, without a pause between them."""
