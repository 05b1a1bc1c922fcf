"""The runbooks as durable workflows, each reading like its text; `guardian` is one entity per cluster."""
