"""The data port: two HTTP servers with the same handlers, and the client's side of every exchange."""
