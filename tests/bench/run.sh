#!/bin/sh
# run.sh BUILD - what `make bench` says: the machine, the peak, the passes, a job phase by phase
#
# Makes a checkpoint of two layers of the shapes of Qwen3-30B-A3B (2.5 GB) beneath BUILD and removes it
# afterwards; a job beside it takes 1 GB more for a while. CHECKPOINT=DIR measures one that
# make_checkpoint wrote, and keeps it. SEQUENCES=N of 512 tokens each (4): more take longer, and say
# the same once the tokens are thousands; THREADS="1 2 4" other numbers of threads; ROUNDS=N takes the
# best of N. A busy machine gives figures that say nothing: look at the load, and at "busy" in the tables.
set -eu
build=$(realpath "${1:?usage: run.sh BUILD}")
cores=$(nproc)
threads=${THREADS:-$([ "$cores" -gt 1 ] && echo "1 2" || echo 1)}
rounds=${ROUNDS:-1}
sequences=${SEQUENCES:-4}
unset OPENBLAS_NUM_THREADS OMP_NUM_THREADS
data=$(mktemp -d "$build/bench-data.XXXXXX")
trap 'rm -rf "$data"' EXIT
trap 'exit 130' INT TERM
checkpoint=${CHECKPOINT:-$data/checkpoint}

load() { cut -d ' ' -f 1-3 /proc/loadavg; }

echo "machine: $(LC_ALL=C lscpu | sed -n 's/^Model name: *//p'), $cores cores, $(sed -n 's/^MemTotal: *//p' /proc/meminfo) of memory, load $(load)"
[ "$(cut -d . -f 1 /proc/loadavg)" -eq 0 ] || echo "warning: something else runs on this machine"
if [ -z "${CHECKPOINT:-}" ]; then
	"$build/bench/make_checkpoint" "$checkpoint" --layers 2 --hidden 2048 --experts 128 --top-k 8 \
		--intermediate 768 --heads 32 --kv-heads 4 --head-dim 128 --sequences "$sequences" --length 512
fi

echo
echo "== one product of tokens with a weight"
for n in $threads; do
	"$build/bench/bench_linear" 4096 2048 1536 "$n"
done
echo
echo "== experts alone, 16 of them, weights in memory"
for n in $threads; do
	"$build/bench/bench_experts" --tokens 2048 --rounds 2 --workers "$n"
done
echo
echo "== a calibration, phase by phase; with the most threads also as one job"
last=${threads##* }
for n in $threads; do
	[ "$n" = "$last" ] && out="--out $data/job" || out=
	# shellcheck disable=SC2086 # two words or none
	"$build/bench/bench_job" "$checkpoint" --threads "$n" --rounds "$rounds" $out
done
echo
echo "== loops beside the products, one thread"
"$build/bench/bench_ops"
echo "load $(load)"
