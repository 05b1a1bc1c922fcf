"""The documents: how their site is built, and what of them is made from the code (`make reference`)."""
