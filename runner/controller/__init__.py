"""The controller: it carries calls out on an engine."""
