"""Plays stories in milliseconds: the real decisions on a modelled world."""
