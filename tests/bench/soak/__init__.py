"""A hundred failovers and failbacks in turns, under writes: is anything lost, and does anything grow?

    make soak CYCLES=100
    make soak MINUTES=60

One lab, one control plane, an HTTP API that is asked all the while. Each cycle kills the primary's node,
agent and database; waits for the failover that the guardian starts; brings the node back, which is rewound;
and moves the service back to it by planned maintenance, which bob asks for and ann approves. Clients write by
the service's name all the while, and one on each node writes past it, which would find a second primary. Each
primary begins a new file of its log once, as it would after more writes.

A violation is a write that was acknowledged and is gone (those of earlier cycles are counted again), a write
acknowledged by a primary that another had succeeded, an effect that happened twice, a killed node that could
not be rewound, and any outcome but verified.

After each cycle, when the clients have stopped: memory and descriptors of each process, the sizes of
histories, databases and logs of writes. Of each series the robust slope (Theil-Sen) over the cycles after a
warm-up is printed. What must level off has a bound per cycle; what grows by right is printed with the reason.
Fails over a violation, and over a slope beyond its bound where there were cycles enough to judge it.
"""
