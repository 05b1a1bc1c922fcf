"""The pure core: every decision of the project, with no I/O, no clock and no Temporal.

Data goes in, a decision comes out; the same input always gives the same bytes. Read `topology` and
`policy` first (what people write), then `evidence` (what the world said), `planner` (what to do
about it), `executor` (what is next), `verifier` (whether it worked).
"""
