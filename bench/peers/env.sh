# Sourced by the scripts: paths, java, and the figures read from a process.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${KLAMM_PEERS:-$HOME/.cache/klamm/peers}
JAVA=${JAVA_HOME:+$JAVA_HOME/bin/}java
JOPTS=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn)
mkdir -p "$CACHE/tmp"

die() { echo "$*" >&2; exit 2; }

# CPU seconds (user + system) and resident MB of a process; "-" without a pid.
cpu_s() { [ -n "$1" ] || { echo -; return; }
  sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f\n", ($12 + $13) / hz }'; }
rss_mb() { [ -n "$1" ] || { echo -; return; }; awk '/^VmRSS/ { printf "%d\n", $2 / 1024 }' "/proc/$1/status"; }

# timed OUTFILE CMD...: run CMD (at most 300 s), output into OUTFILE, its CPU seconds into $client_cpu.
timed() {
  local out=$1 t TIMEFORMAT='%U %S'; shift
  t=$( { time timeout 300 "$@" >"$out" 2>&1; } 2>&1 ) || { tail -20 "$out" >&2; die "failed: $*"; }
  client_cpu=$(awk '{ print $1 + $2 }' <<<"$t")
}

# report SYSTEM WORKLOAD SIZE RECORDS REC_PER_S BROKER_PID CPU_BEFORE [EXTRA...]: one line of figures.
report() {
  local gb cpu=-
  gb=$(awk -v n="$4" -v s="$3" 'BEGIN { print n * s / 1e9 }')
  [ -z "$6" ] || cpu=$(awk -v a="$7" -v b="$(cpu_s "$6")" -v g="$gb" 'BEGIN { printf "%.2f", (b - a) / g }')
  printf '%s %s size=%s rec/s=%.0f MB/s=%s %s broker-cpu-s/GB=%s client-cpu-s/GB=%s broker-rss-MB=%s\n' \
    "$1" "$2" "$3" "$5" "$(awk -v r="$5" -v s="$3" 'BEGIN { printf "%.1f", r * s / 1e6 }')" "${*:8}" "$cpu" \
    "$(awk -v c="$client_cpu" -v g="$gb" 'BEGIN { printf "%.2f", c / g }')" "$(rss_mb "$6")"
}

# make_topic BOOTSTRAP TOPIC PARTITIONS
make_topic() {
  [ -d "$CACHE/libs" ] || die "run ./get first"
  "$JAVA" "${JOPTS[@]}" -XX:TieredStopAtLevel=1 -cp "$CACHE/libs/*" org.apache.kafka.tools.TopicCommand \
    --bootstrap-server "$1" --create --if-not-exists --topic "$2" --partitions "$3" --replication-factor 1 >/dev/null
}
