#!/usr/bin/env bash
# HiPRAG from question to reward, on real questions and passages, with a real language model on a CPU.
#
#   pipelines/hiprag.sh
#   QUESTIONS=100 MODEL=Qwen/Qwen2.5-3B-Instruct OUT=run1 pipelines/hiprag.sh
#
# Every stage is a command of its own; kill it anywhere and start it again, and it goes on.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
data=$here/lib/toolroll/data/hotpotqa
questions=${QUESTIONS:-24}
model=${MODEL:-embedded}
out=${OUT:-demo-out}

mkdir -p "$out"
if [ ! -d "$out/index" ]; then
  rag-index "$data/corpus.jsonl.gz" "$out/index" > "$out/index.json"
fi
if [ ! -f "$out/questions.jsonl" ]; then
  head -n "$questions" "$data/questions.jsonl" > "$out/questions.jsonl"
fi

# A model of 135M parameters does not keep to the form by itself: --constrain lets it write only
# well-formed steps. --closed-book also asks it each query without the passages, which is what the
# over-search judge compares with.
if [ ! -f "$out/rollouts.jsonl" ]; then
  rag-rollout "$out/questions.jsonl" --model "$model" --retriever "bm25:$out/index" --passages 2 \
    --constrain --field-tokens 32 --max-steps 2 --max-searches 1 --context-tokens 250 \
    --temperature 0 --closed-book --closed-book-tokens 48 \
    --output "$out/rollouts.jsonl" --resume
fi

step-parse "$out/rollouts.jsonl" |
  step-reward --judge lexical,evidence --judge-all --retriever "bm25:$out/index" \
    --output "$out/scored.jsonl"

echo
step-stats --table "$out/scored.jsonl"
echo
echo "Files:"
for file in index questions.jsonl rollouts.jsonl scored.jsonl; do
  echo "  $out/$file"
done
echo "Look at one trajectory:  head -n 1 $out/scored.jsonl | jq -r .response"
