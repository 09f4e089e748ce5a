"""What a command is told to do: the table of settings, files and variables, and their values."""
