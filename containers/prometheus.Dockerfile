# Debian's Prometheus with this project's recording rules and alerts.
FROM debian:bookworm-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus \
 && rm -rf /var/lib/apt/lists/* \
 && install -d -o prometheus -g prometheus /var/lib/prometheus
COPY containers/prometheus.yml prometheus/continuity_rules.yml prometheus/continuity_alerts.yml /etc/continuity/
RUN promtool check config /etc/continuity/prometheus.yml
USER prometheus
EXPOSE 9090
CMD ["prometheus", "--config.file=/etc/continuity/prometheus.yml", "--storage.tsdb.path=/var/lib/prometheus"]
