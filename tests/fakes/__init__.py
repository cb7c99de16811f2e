"""Stand-ins for what surrounds the proxy: a provider, clients on bare sockets, and the proxy itself as a process."""
