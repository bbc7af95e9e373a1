#!/usr/bin/env bash
# LayerCast: one model, one set of questions, greedy answers, and only the arithmetic varies. Which precisions give the
# same answers whatever the batch, the padding and the number of devices? On a CPU, in about forty minutes of one core.
#
#   pipelines/layercast.sh
#   QUESTIONS=500 TOKENS=2048 BATCHES=8,16,32 MODEL=Qwen/Qwen2.5-7B-Instruct pipelines/layercast.sh
#
# Three axes, each with every precision: the batch (questions of different lengths, so that it changes the padding), the
# number of devices of tensor parallelism (simulated on one), the number of threads. repro-report tells for each axis and
# precision how many answers diverge, where, and what memory and time they took.
#
# Kill it anywhere and start it again, and it goes on.
set -euo pipefail

questions=${QUESTIONS:-24}
tokens=${TOKENS:-64}       # longest answer
batches=${BATCHES:-1,4,16}
devices=${DEVICES:-1,2,4}  # simulated tensor parallelism
threads=${THREADS:-1,2}
axes=${AXES:-batch devices threads}
precisions=${PRECISIONS:-bf16,fp16,fp32,layercast}
model=${MODEL:-embedded}
out=${OUT:-layercast-out}

mkdir -p "$out"

# Real questions, of HotpotQA.
here=$(cd "$(dirname "$0")/.." && pwd)
python3 - "$here/lib/toolroll/data/hotpotqa/questions.jsonl" "$questions" > "$out/questions.jsonl" << 'PYTHON'
import json
import sys

for line in open(sys.argv[1], encoding="utf-8").readlines()[: int(sys.argv[2])]:
    row = json.loads(line)
    print(json.dumps({"id": row["id"], "prompt": row["question"], "answer": row["golden_answers"]}))
PYTHON

# run AXIS NAME=VALUES...: one grid, and its report in one line a precision
run() {
  local axis=$1
  shift
  layercast-run "$out/questions.jsonl" --model "$model" --response-tokens "$tokens" --top-logprobs 0 --check contains \
    --timings --grid "precision=$precisions" "$@" -o "$out/$axis.jsonl" --resume
  repro-report "$out/$axis.jsonl" --plot "$out/$axis.png" --html "$out/$axis.html" -o "$out/$axis-report.jsonl"
}

first=${threads%%,*}
for axis in $axes; do
  case $axis in
    batch) run batch "batch=$batches" tp=1 "threads=$first" ;;
    devices) run devices "tp=$devices" "batch=${batches##*,}" "threads=$first" ;;
    threads) run threads "threads=$threads" "batch=${batches##*,}" tp=1 ;;
  esac
done

# One file, a line for each axis and precision, with what was run and where.
python3 - "$out" "$axes" "model=$model" "questions=$questions" "tokens=$tokens" "batch=$batches" "devices=$devices" \
  "threads=$threads" > "$out/report.jsonl" << 'PYTHON'
import json
import sys
from pathlib import Path

out, axes, plan = Path(sys.argv[1]), sys.argv[2].split(), dict(part.split("=", 1) for part in sys.argv[3:])
for axis in axes:
    with open(out / f"{axis}.jsonl", encoding="utf-8") as file:
        config = json.loads(next(file))["config"]
    where = {name: config[name] for name in ("device", "capability", "blas", "versions")}
    for line in (out / f"{axis}-report.jsonl").read_text(encoding="utf-8").splitlines():
        print(json.dumps({"axis": axis, "plan": plan, "where": where, **json.loads(line)}))
PYTHON
for axis in $axes; do
  echo "== $axis =="
  repro-report "$out/$axis.jsonl" --table
done
echo "all figures: $out/report.jsonl; answers side by side: $out/AXIS.html"
