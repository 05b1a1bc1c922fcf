"""The simulator at scale: what a hundred thousand failures of a primary would come to, under these settings.

Needs the extra `simulator` (numpy for the figures, matplotlib for the pictures). The rules are those of
`qnwis.continuity`, written for whole arrays of failures; tests hold them equal to the real ones, failure by
failure.
"""
