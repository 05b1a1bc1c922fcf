# Everything of this project in one image: workers, vantages, API, commands, the lab's DNS server (target
# `continuity`), and with PostgreSQL beside it a node (target `node`).
#
#   docker build -f containers/continuity.Dockerfile --target continuity -t qnwis-continuity .

FROM debian:bookworm-slim AS build
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements/lock.txt requirements/
# Versions are those of the lock; uv, itself one of them, then holds what it brings to the lock's hashes too.
RUN sed -n 's/^\([a-z0-9][^ ;]*==[^ ;]*\).*/\1/p' requirements/lock.txt > versions.txt \
 && python3 -m venv /opt/build \
 && /opt/build/bin/pip install -q --no-cache-dir --constraint versions.txt uv hatchling \
 && python3 -m venv --without-pip /opt/qnwis
ENV VIRTUAL_ENV=/opt/qnwis UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
# The dependencies are a layer of their own: a changed line of the project does not bring them anew.
COPY pyproject.toml README.md ./
RUN /opt/build/bin/uv pip install -q --compile-bytecode --constraint requirements/lock.txt -r pyproject.toml
COPY activities activities
COPY config config
COPY runbooks runbooks
COPY src src
COPY workers workers
COPY workflows workflows
RUN /opt/build/bin/hatchling build -t wheel \
 && /opt/build/bin/uv pip install -q --compile-bytecode --no-deps dist/*.whl

FROM debian:bookworm-slim AS base
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    ca-certificates curl python3 tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp qnwis \
 # New volumes take their owner from here.
 && install -d -o qnwis -g qnwis -m 0700 /private /state /node \
 && install -d -o qnwis -g qnwis -m 0755 /config
ENV PATH=/opt/qnwis/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
ENTRYPOINT ["tini", "--"]

FROM base AS continuity
COPY --from=build /opt/qnwis /opt/qnwis
USER qnwis
CMD ["qnwis-continuity", "--help"]

FROM base AS node
# The package would make a database of its own.
RUN mkdir -p /etc/postgresql-common \
 && echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/*
# Of the one-shot service that makes keys, configuration and databases, for each part its own volume.
ARG VOLUMES="lab config dns audit api writers person vantage-1 worker-2 worker-3 node-1 node-2 node-3"
RUN for volume in $VOLUMES; do install -d -o qnwis -g qnwis -m 0700 "/volumes/$volume"; done \
 && chmod 0755 /volumes/config && install -d -o nobody -g nogroup -m 0700 /volumes/temporal
COPY --from=build /opt/qnwis /opt/qnwis
USER qnwis
CMD ["python", "-m", "qnwis.agent", "--config", "/node/agent.yaml"]
