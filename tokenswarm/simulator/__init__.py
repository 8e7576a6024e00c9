"""An LLM server without a model: OpenAI's chat API over a latency model of continuous batching.

It is what the suite runs against when no server is named, and the reference of its accuracy tests: its send log tells
when each event really went to the socket. Not a model of any one server's scheduler, and never a result by itself.
"""
