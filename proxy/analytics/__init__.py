"""Who spent what, where and why: sums that PostgreSQL maintains beside the traces, and the queries on them."""
