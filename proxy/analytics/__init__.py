"""Who spent what, where and why: sums that PostgreSQL keeps beside the traces, and the questions that they answer."""
