"""Local environments: the packages of an image, installed on this machine."""
