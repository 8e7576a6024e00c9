"""Bytes on the wire. Push-style: a reader hands bytes and their arrival to an exchange; no greenlet wakes for a chunk.

`connection.py` sockets and TLS, `clock.py` arrivals, `exchange.py` one response, `http.py` pool and deadlines,
`portable.py` requests instead of all that; `function.py` a function in place of a server.
"""
