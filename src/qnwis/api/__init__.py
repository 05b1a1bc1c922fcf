"""The HTTP API: decodes a request, asks what the command line asks too, and answers. It decides nothing."""
