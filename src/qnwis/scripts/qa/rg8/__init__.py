"""The checks of the RG-8 gate, one in each file. Each has a NAME, says what it HOLDS, and answers `Found`."""
