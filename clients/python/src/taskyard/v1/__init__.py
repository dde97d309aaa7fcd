"""The generated messages and calls of the API taskyard.v1."""
