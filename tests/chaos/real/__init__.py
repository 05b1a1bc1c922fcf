"""Playing a story on the lab's real processes, in a network of their own.

`play_stories` is for whoever stands outside: it encloses one `python -m tests.chaos.real` for each story.
"""

from __future__ import annotations

from .outside import play_stories as play_stories
