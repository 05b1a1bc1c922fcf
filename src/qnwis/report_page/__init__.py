"""The report of a run as one HTML page, without scripts and without anything from elsewhere."""
