"""A process that asks others what their machines and servers do, while a run is on: hardware exporters and the model
server's own metrics page. It knows no run directory and loads no Locust: it prints what it finds, a line a message.
"""
