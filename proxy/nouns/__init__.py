"""The nouns that packages share; `proxy.exchange` joins them to the data of one request. No verbs."""
