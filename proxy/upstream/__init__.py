"""Communication with providers: clients, header rules, websockets, prices."""
