"""The data port: aiohttp's server, hardened, and the client's side of every exchange."""
