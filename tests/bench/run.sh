#!/bin/sh
# run.sh BUILD - what `make bench` says: the machine, the peak, the passes, a job phase by phase
#
# The checkpoint (2.6 GB, two layers of the shapes of a model of 30 G parameters) is made once beneath
# build/bench. CHECKPOINT=DIR measures another one that make_checkpoint wrote; THREADS="1 2 4" other
# numbers of threads; ROUNDS=N takes the best of N. A busy machine gives figures that say nothing:
# look at the load, and at "busy" in the tables.
set -eu
cd "$(dirname "$0")/../.."
build=${1:?usage: run.sh BUILD}
data=build/bench
checkpoint=${CHECKPOINT:-$data/checkpoint}
cores=$(nproc)
threads=${THREADS:-$([ "$cores" -gt 1 ] && echo "1 2" || echo 1)}
rounds=${ROUNDS:-1}
unset OPENBLAS_NUM_THREADS OMP_NUM_THREADS

load() { cut -d ' ' -f 1-3 /proc/loadavg; }

echo "machine: $(LC_ALL=C lscpu | sed -n 's/^Model name: *//p'), $cores cores, $(sed -n 's/^MemTotal: *//p' /proc/meminfo) of memory, load $(load)"
[ "$(cut -d . -f 1 /proc/loadavg)" -eq 0 ] || echo "warning: something else runs on this machine"

# config.json is written last
if [ ! -e "$checkpoint/config.json" ]; then
	echo "making $checkpoint"
	"$build/bench/make_checkpoint" "$checkpoint"
fi

echo
echo "== products of tokens with a weight"
"$build/bench/bench_linear"
echo
echo "== experts alone, 16 of them, weights in memory"
"$build/bench/bench_experts"
echo
echo "== a calibration, phase by phase; with the most threads also as one job"
last=${threads##* }
for n in $threads; do
	[ "$n" = "$last" ] && out="--out $data/job" || out=
	# shellcheck disable=SC2086 # two words or none
	"$build/bench/bench_job" "$checkpoint" --threads "$n" --rounds "$rounds" $out
done
echo "load $(load)"
