"""Settings of commands: their table, configuration files and variables, and their values."""
