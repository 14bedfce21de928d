# What the benchmarks share: a work directory, images, servers, fio. Sourced, not run.
#
#   QNBD_BENCH_DIR   where the images are made (default: TMPDIR, or /var/tmp)
#   QNBD_JAVA_OPTS   more options for qnbd's Java
#
# Every server listens on the loopback only. What a script starts it stops again, by process id, also when it is
# interrupted; the work directory goes with it.
# shellcheck shell=bash
export LC_ALL=C.UTF-8
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
bench_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
step_seconds_max=120 # no single run of a tool takes longer, on any disk that is worth measuring
server_pid='' strace_pid='' server_uri='' work='' trace_file=''

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }

need() {
  local tool
  for tool; do
    command -v "$tool" >/dev/null || die "$tool is needed"
  done
}

# Makes the work directory; from here on, leaving the script cleans up.
open_rig() {
  need fio qemu-img qemu-nbd qemu-io python3
  "$bench_root/qnbd" --version >/dev/null || die "qnbd does not run"
  work=$(mktemp -d "${QNBD_BENCH_DIR:-${TMPDIR:-/var/tmp}}/qnbd-bench.XXXXXX")
  trap close_rig EXIT
  trap 'exit 130' INT TERM
}

close_rig() {
  stop_server
  [ -z "$work" ] || rm -rf "$work"
}

# ---- images -------------------------------------------------------------------------------------------------------

# make_image RECIPE SIZE FILE
make_image() {
  local recipe=$1 size=$2 file=$3
  rm -f "$file"
  case $recipe in
    raw) truncate -s "$size" "$file" ;;
    qcow2) qemu-img create -q -f qcow2 "$file" "$size" ;;
    snapshot)
      qemu-img create -q -f qcow2 -o preallocation=metadata "$file" "$size"
      qemu-img snapshot -c one "$file"
      ;;
    full)
      qemu-img create -q -f qcow2 "$file" "$size"
      qemu-io -f qcow2 -t unsafe -c "write -q -P 90 0 $size" "$file"
      ;;
    full-snapshot)
      make_image full "$size" "$file"
      qemu-img snapshot -c one "$file"
      ;;
    compressed)
      make_image full "$size" "$file.plain"
      qemu-img convert -q -c -f qcow2 -O qcow2 "$file.plain" "$file"
      rm -f "$file.plain"
      ;;
    *) die "no image recipe is named $recipe" ;;
  esac
}

format_of() { [ "$1" = raw ] && echo raw || echo qcow2; }

# ---- servers ------------------------------------------------------------------------------------------------------

# start_server NAME CACHE FORMAT IMAGE [WARM]: NAME is qnbd, qnbd-plain (no batch, no reservation) or qemu-nbd. Sets
# server_pid and server_uri. qnbd exports WARM, too, as "warm". With trace_file set, the system calls that write to
# a file go there, each with its time.
start_server() {
  local try
  for try in 1 2 3; do
    if try_start_server "$@"; then
      return
    fi
    stop_server
  done
  cat "$work/server.err" >&2
  die "$1 did not start in $try attempts"
}

try_start_server() {
  local name=$1 cache=$2 format=$3 image=$4 warm=${5:-} port command
  port=$((20000 + RANDOM % 20000))
  case $name in
    qemu-nbd)
      command=(qemu-nbd --persistent --shared=4 --discard=unmap --cache="$cache" -f "$format"
        --bind=127.0.0.1 --port="$port" "$image")
      ;;
    qnbd*)
      command=("$bench_root/qnbd" serve --listen "127.0.0.1:$port" --cache "$cache" -f "$format")
      [ "$name" = qnbd ] || command+=(--ref-batch 0 --ref-reserve 0)
      command+=("=$image")
      [ -z "$warm" ] || command+=("warm=$warm")
      ;;
    *) die "no server is named $name" ;;
  esac
  if [ -n "$trace_file" ]; then
    # The filter in the kernel leaves all other calls at full speed.
    command=(strace -f --seccomp-bpf -q -ttt -y -o "$trace_file" -e "signal=none"
      -e "trace=$traced_calls" "${command[@]}")
  fi
  "${command[@]}" >"$work/server.out" 2>"$work/server.err" </dev/null &
  server_pid=$!
  if [ -n "$trace_file" ]; then
    strace_pid=$server_pid
    until server_pid=$(traced_child) && [ -n "$server_pid" ]; do
      running "$strace_pid" || { strace_pid=''; return 1; }
      sleep 0.01
    done
  fi
  server_uri=nbd://127.0.0.1:$port
  await_server "$port"
}

# The child of strace that is the server: the others, which try out what the kernel can do, keep strace's name.
traced_child() { ps -o pid=,comm= --ppid "$strace_pid" | awk '$2 != "strace" { print $1; exit }'; }

traced_calls=pwrite64,pwritev,pwritev2,write,writev,fdatasync,fsync,sync_file_range,syncfs,fallocate,ftruncate
traced_calls+=,copy_file_range,sendfile,io_uring_enter

await_server() {
  local deadline=$((SECONDS + 30))
  until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
    kill -0 "$server_pid" 2>/dev/null && ((SECONDS < deadline)) || return 1
    sleep 0.05
  done
  kill -0 "$server_pid" 2>/dev/null
}

# A process that has ended but was not waited for does not run.
running() { [[ -e /proc/$1/stat ]] && [[ $(<"/proc/$1/stat") != *") Z "* ]]; } 2>/dev/null

# Stops the server as an operator would, so that it closes its images; one that does not end is killed.
stop_server() {
  [ -n "$server_pid" ] || return 0
  local deadline=$((SECONDS + 60))
  kill -TERM "$server_pid" 2>/dev/null
  while running "$server_pid"; do
    if ((SECONDS >= deadline)); then
      say "process $server_pid does not end, killing it"
      kill -KILL "$server_pid" 2>/dev/null
    fi
    sleep 0.02
  done
  wait "${strace_pid:-$server_pid}" 2>/dev/null
  server_pid='' strace_pid=''
}

# Whether qemu-img finds nothing wrong with a stopped image, leaks aside.
must_be_sound() {
  local status=0
  [ "$(format_of "$1")" = raw ] || qemu-img check -q -f qcow2 "$2" >"$work/check" 2>&1 || status=$?
  [ "$status" = 0 ] || [ "$status" = 3 ] || { cat "$work/check" >&2; die "the image is damaged after $3"; }
}

# ---- load ---------------------------------------------------------------------------------------------------------

# run_fio URI BLOCK DEPTH WRITES SIZE [OPTION...]: random writes, no offset twice, the same offsets each time. Prints
# IOPS and milliseconds.
run_fio() {
  local uri=$1 block=$2 depth=$3 writes=$4 size=$5
  shift 5
  timeout "$step_seconds_max" fio --name=random --ioengine=nbd --uri="$uri" --rw=randwrite --bs="$block" \
    --iodepth="$depth" --size="$size" --io_size=$((block * writes)) --randrepeat=1 --randseed=2011 --norandommap=0 \
    --refill_buffers=0 --output-format=terse --terse-version=3 "$@" >"$work/fio.out" 2>"$work/fio.err" \
    || { cat "$work/fio.out" "$work/fio.err" >&2; die "fio failed"; }
  # Terse version 3: field 5 is the error, 49 the write IOPS, 50 the run time of the writes in milliseconds.
  awk -F';' '$1 == 3 { if ($5 != 0) exit 1; print $49, $50; found = 1 } END { exit !found }' "$work/fio.out" \
    || { cat "$work/fio.out" "$work/fio.err" >&2; die "fio's report makes no sense"; }
}

# ---- report -------------------------------------------------------------------------------------------------------

# Prints one JSON line about the machine, the programs and the command.
machine_json() {
  python3 - "$work" "$bench_root" "$@" <<'PYTHON'
import json, os, platform, subprocess, sys

work, root, bench, *command = sys.argv[1:]

def first_line(*words, cwd=None):
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd)
    return (done.stdout or done.stderr).strip().split("\n")[0]

cpu = next(l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name"))
memory = next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemTotal"))
print(json.dumps({
    "bench": bench,
    "kind": "machine",
    "command": " ".join(command),
    "date": first_line("date", "-u", "+%Y-%m-%dT%H:%MZ"),
    "cpu": cpu,
    "cores": os.cpu_count(),
    "memory_gib": round(memory / 2**20),
    "kernel": platform.release(),
    "file_system": first_line("findmnt", "-n", "-o", "FSTYPE", "-T", work),
    "qnbd": first_line("git", "describe", "--always", "--dirty", "--abbrev=12", cwd=root),
    "qemu": first_line("qemu-nbd", "--version"),
    "fio": first_line("fio", "--version"),
    "load_at_start": float(open("/proc/loadavg").read().split()[0]),
}))
PYTHON
}

load_now() { cut -d' ' -f1 /proc/loadavg; }
