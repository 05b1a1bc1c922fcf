"""The shell of the break-glass steps: the functions that every pasted block begins with, and its lines.

A block runs in a subshell of bash that ends at the first line that fails, so that pasting the next block is
always a person's decision. Whatever is interpolated is quoted; bodies are the JSON of the agents' own models.
"""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote

from .model import Model
from .topology import DnsService, Node, Route53Record, host_and_port

TOOLS = ("curl", "jq", "psql", "nsupdate", "dig")
"""What the steps use beside bash and coreutils; all are in `requirements/debian.txt`."""
ANSWER_WITHIN_S = 5

_FUNCTIONS = r"""
set -euo pipefail
cd {run_id}
trap 'if [ $? = 0 ]; then echo "==> go on"; else echo "==> STOP"; fi' EXIT

ask=(curl -sS --connect-timeout 1)
[ -z "${{QNWIS_IDENTITY_DIR:-}}" ] ||  # the person's own certificate, where agents ask for one
  ask+=(--tlsv1.3 --cacert "$QNWIS_IDENTITY_DIR/ca.pem" --cert "$QNWIS_IDENTITY_DIR/identity.pem")

tell() {{  # tell NAME URL BODY: post it and keep the answer as NAME.json; fails unless it was obeyed
  local status
  rm -f "$1.json"
  status=$("${{ask[@]}}" --max-time "${{within:-{answer_within_s}}}" -o "$1.json" \
    -w '%{{http_code}}' -H 'content-type: application/json' -d "$3" "$2") ||
    {{ echo "$1: no answer"; return 1; }}
  echo "$1: $status $(cat "$1.json")"
  [ "$status" = 200 ]
}}

look() {{  # look NODE URL: read what its agent says now, and keep it as state-NODE.json
  rm -f "state-$1.json"
  "${{ask[@]}}" --max-time 2 -o "state-$1.json" "$2/state" || echo "$1: no answer"
}}

promised() {{  # promised NAME [released]: a majority promised, and the old primary can serve no more
  jq -s --arg released "${{2:-}}" '
    map(select(.epoch == {epoch} and .run_id == "{run_id}" and .membership_version == {version}))
    | (map(.granted | select(. != null and .holder != "{target}")) | max_by([.epoch, .released])) as $last
    | any(.granted.holder == "{target}" and .granted.epoch == {epoch}) as $granted
    | {{ promised_by: map(.member), needed: {majority}, last_holder: $last,
        wait_s: (map(if .granted != null and .granted.holder != "{target}" then .remaining_s else 0 end)
                 | sort | .[{majority} - 1]),
        ok: (length >= {majority} and ($granted or ($last.holder == "{primary}"
             and ($released == "" or $last.released)))) }}' "$1"-*.json > gate.json || return 1
  cat gate.json
  jq -e .ok gate.json > /dev/null || return 1
  sleep "$(jq -r .wait_s gate.json)"
}}

has_begun() {{  # an earlier paste of the promotion took effect
  jq -e '.database_up and .in_recovery == false and .epoch >= {epoch}' state-{target}.json > /dev/null 2>&1
}}

target_has_all() {{  # no standby is further on than {target}, and nobody writes
  jq -s '
    map(select(.node_id == "{target}"))[0] as $own
    | map(select(.database_up and .in_recovery and .timeline != null and .receive_lsn != null
          and .system_identifier == $own.system_identifier)) as $standbys
    | ($standbys | map([.timeline, .receive_lsn]) | max) as $head
    | {{ standbys: ($standbys | map({{node_id, timeline, receive_lsn}})), needed: {needed},
        allowed_lag_bytes: {allowed_lag_bytes}, writable: map(select(.writable) | .node_id) }}
    | .ok = ((.standbys | length) >= {needed} and (.writable | length) == 0
        and (.standbys | map(.node_id) | index("{target}")) != null
        and $own.timeline == $head[0] and $head[1] - $own.receive_lsn <= {allowed_lag_bytes})
    ' state-*.json > positions.json || return 1
  cat positions.json
  jq -e .ok positions.json > /dev/null
}}

serves() {{  # serves STANDBYS: {target} alone accepts writes, and these (a JSON list) stream from it
  jq -s --argjson wanted "$1" '
    {{ writable: map(select(.writable) | .node_id),
      streaming: map(select(.streaming and .upstream == "{target}") | .node_id) }}
    | .ok = (.writable == ["{target}"] and ($wanted - .streaming) == [])
    ' state-*.json > serves.json || return 1
  cat serves.json
  jq -e .ok serves.json > /dev/null
}}

answers() {{  # answers SERVER PORT NAME ADDRESS: the DNS server answers it, within some seconds
  local found=
  for _ in $(seq 20); do
    found=$(dig +short +time=1 +tries=1 "@$1" -p "$2" "$3" A | sort | paste -sd ' ') || true
    [ "$found" != "$4" ] || {{ echo "$1 answers $found"; return 0; }}
    sleep 0.5
  done
  echo "$1 answers '$found' for $3, expected $4"
  return 1
}}
"""


def functions(
    *,
    run_id: str,
    epoch: int,
    version: int,
    majority: int,
    primary: str,
    target: str,
    needed: int,
    allowed_lag_bytes: int,
) -> str:
    """The file that each block sources. `needed`: standbys that must answer before the promotion."""
    return _FUNCTIONS.strip("\n").format(
        run_id=run_id,
        epoch=epoch,
        version=version,
        majority=majority,
        primary=primary,
        target=target,
        needed=needed,
        allowed_lag_bytes=allowed_lag_bytes,
        answer_within_s=ANSWER_WITHIN_S,
    )


def prepare(run_id: str, text: str, checks: Iterable[str]) -> str:
    """The first block: it makes the folder with the functions, and checks what the later ones need."""
    lines = [
        f"mkdir -p {run_id} && cat > {run_id}/functions.sh <<'END_OF_FUNCTIONS'\n{text}\nEND_OF_FUNCTIONS",
        block(run_id, [f"command -v {tool}" for tool in TOOLS] + list(checks)),
    ]
    return "\n".join(lines)


def block(run_id: str, lines: Iterable[str]) -> str:
    return "\n".join([f"( . ./{run_id}/functions.sh", *lines, ")"])


def tell(name: str, node: Node, path: str, body: Model, *, within_s: float = ANSWER_WITHIN_S) -> str:
    """Post a model to an agent."""
    return tell_text(name, node, path, quote(_sent(body)), within_s=within_s)


def tell_text(name: str, node: Node, path: str, body: str, *, within_s: float = ANSWER_WITHIN_S) -> str:
    """The same with a body that the shell makes."""
    patience = "" if within_s == ANSWER_WITHIN_S else f"within={within_s:g} "
    return f"{patience}tell {name} {quote(node.agent_url + path)} {body}"


def filled_in(body: Model, program: str, file: str) -> str:
    """A body that takes something from an answer: `program` is jq's, and the answer is `$from[0]` in it."""
    return f'"$(jq -c --slurpfile from {file} {quote(program)} <<< {quote(_sent(body))})"'


def _sent(body: Model) -> str:
    """An agent of an earlier version refuses fields it does not know, those that say nothing too."""
    return body.model_dump_json(exclude_none=True)


def look(node: Node) -> str:
    return f"look {node.node_id} {quote(node.agent_url)}"


def psql(node: Node, query: str) -> str:
    """Ask a node's database, as whom PGUSER says."""
    host, port = (node.database.host, node.database.port) if node.database else (node.hostname, 5432)
    where = quote(f"host={host} port={port} dbname=postgres connect_timeout=3")
    return f"psql {where} -XAtc {quote(query)}"


def moved(dns: DnsService, name: str, *, from_address: str, to_address: str, ttl_s: int) -> list[str]:
    """Compare-and-swap of the record; what whoever holds it answers then decides."""
    if dns.route53 is not None:
        return _moved_in_route53(dns.route53, name, from_address, to_address, ttl_s)
    if dns.provider is not None:
        where = f"{dns.provider.name} holds {name}, and these steps do not speak to it"
        what = f"have it answer {to_address} in place of {from_address}, for {ttl_s} s"
        return [f"echo {quote(f'By hand: {where}: {what}.')}"]
    places = [place for server in dns.servers if (place := host_and_port(server)) is not None]
    key = f" -k {quote(dns.tsig_key_file)}" if dns.tsig_key_file is not None else ""
    host, port = places[0]
    return [
        f"nsupdate{key} <<'END_OF_UPDATE' || echo 'the update was not taken: has it been made before?'",
        f"server {host} {port}",
        f"zone {dns.zone}",
        f"prereq yxrrset {name} A {from_address}",
        f"update delete {name} A",
        f"update add {name} {ttl_s} A {to_address}",
        "send",
        "END_OF_UPDATE",
        *(f"answers {quote(host)} {port} {quote(name)} {quote(to_address)}" for host, port in places),
    ]


def _moved_in_route53(
    held: Route53Record, name: str, from_address: str, to_address: str, ttl_s: int
) -> list[str]:
    """As the worker does it: delete the record as it was found, create it anew, both or none."""
    zone = quote(held.hosted_zone_id)
    program = (
        '[.ResourceRecordSets[] | select(.Name == $name and .Type == "A")'
        ' | select((.SetIdentifier // "") == $set)][0]'
        " | select(.ResourceRecords == [{Value: $from}])"
        ' | {Changes: [{Action: "DELETE", ResourceRecordSet: .}, {Action: "CREATE", ResourceRecordSet:'
        " (. + {TTL: $ttl, ResourceRecords: [{Value: $to}]})}]}"
    )
    listed = (
        f"aws route53 list-resource-record-sets --hosted-zone-id {zone} --start-record-name {quote(name)}"
        " --start-record-type A --output json"
    )
    return [
        f"change=$({listed} | jq -c --arg name {quote(name)} --arg set {quote(held.set_identifier or '')}"
        f" --arg from {quote(from_address)} --arg to {quote(to_address)} --argjson ttl {ttl_s}"
        f" {quote(program)})",
        f'test -z "$change" || aws route53 change-resource-record-sets --hosted-zone-id {zone}'
        ' --change-batch "$change"',
        f"{listed} | jq -e --arg to {quote(to_address)} '[.ResourceRecordSets[].ResourceRecords[]?.Value]"
        " | index($to) != null'",
    ]
