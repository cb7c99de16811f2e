"""The whole proxy, seen from outside: raw sockets on both sides."""
