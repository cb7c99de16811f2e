"""The command line: one file per noun, each with `configure(parser)`; imported only when its command is called."""
