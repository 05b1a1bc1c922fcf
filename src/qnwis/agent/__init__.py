"""The node agent: runs beside one database, says how it is, and obeys epoch-checked orders.

Read `config` (what it is told), `orders` (what it obeys), `keeper` (when it starts the database by
itself) and `server` (what it answers).
"""
