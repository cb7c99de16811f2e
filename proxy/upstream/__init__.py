"""The side towards the providers: clients, header rules, websockets, prices."""
