"""The controller, which carries out calls on an engine."""
