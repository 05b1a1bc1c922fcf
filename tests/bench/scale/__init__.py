"""What it costs to hold many clusters, how that grows, and what the same questions cost others.

    make install-peers
    make bench-scale CLUSTERS=10,100,200,1000

The packages are for the comparison alone (as root); `ARGS=--no-blackbox` does without.

One worker process, which runs the runbooks and is the only vantage, and one Temporal development server hold
10 to 1,000 clusters of five nodes at an interval of 5 s, all on two cores. The agents of all nodes are played
by one process, each at an address of its own: health questions are answered from memory, and states, promises
and orders as real agents answer them, so that real runs are carried out, DNS record included. Behind them is
no database: their effects take no time.

Nothing happens at first: CPU time per health question (a heartbeat, a readiness or a deep check), memory,
heartbeats that came after their deadline, by how much the guardians' histories grow. Then primaries fail, one
after the other; then, of up to 200 clusters, regions are lost, with one cluster in it, with one wave of
clusters, and with a hundred. Then the worker is killed, and it is measured how long another one needs until
every guardian sees every node again. At last the same questions are asked by a bare asyncio loop and through
Prometheus' blackbox exporter.
"""
