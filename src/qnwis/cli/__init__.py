"""The command line: one module a command, all sharing `output` for what people and programs read."""
