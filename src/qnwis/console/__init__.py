"""The operations console: plain HTML, CSS and ES modules, a client of the public API and of nothing else."""
