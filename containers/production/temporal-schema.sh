#!/bin/sh
# Makes Temporal's two databases in PostgreSQL and brings them to the schema of this temporal-sql-tool. Before the first
# start of a server, and again before each upgrade. The tool reads SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD itself.
set -eu
export SQL_PLUGIN=postgres12

bring_up() { # DATABASE SCHEMA
  temporal-sql-tool --database "$1" create-database
  temporal-sql-tool --database "$1" setup-schema --version 0.0
  temporal-sql-tool --database "$1" update-schema --schema-name "postgresql/v12/$2"
}

bring_up temporal temporal
bring_up temporal_visibility visibility
