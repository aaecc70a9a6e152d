#!/usr/bin/env bash
# publish.sh RUN TOKENIZER [CARD_OPTION...]: a run of train.py --talk becomes the demonstration model: weights,
# calibration images, packed file, program, curve, the held-out test with its sample, figures in the documents.
# PYTHON names a Python with torch; CONVERSATIONS is the size of the test (2000). What is there already of the
# test is made again only after a change of this directory's code.
set -euo pipefail
run=$(realpath "${1:?the directory of train.py --out}") tokenizer=$(realpath "${2:?the directory of tok.py}")
shift 2
cd "$(dirname "$0")/../.."
train=tools/train model=models/demo test=build/demo-test
python=${PYTHON:-.venv/bin/python} n=${CONVERSATIONS:-2000}

for tool in rsvg-convert convert; do # the test has their drawings
    command -v $tool >/dev/null || { echo "publish.sh: $tool is missing: apt-get install librsvg2-bin imagemagick" >&2; exit 1; }
done

[ "$tokenizer" -ef $model ] || # what tok.py writes
    cp "$tokenizer"/{vocab,tokenizer,tokenizer_config,special_tokens_map,added_tokens}.json "$tokenizer/merges.txt" $model
"$python" $train/export.py "$run" $model
cp "$run/loss.csv" $train/loss.csv
"$python" $train/plot.py $train/loss.csv docs/demo-loss.svg

made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
"$python" $train/make_test.py "$made" --talk -n 90 --split train --jpeg # about 96 images
rm -f $model/calibration/*
cp "$made"/images/* $model/calibration
tools/demo-model.sh

stamp=$(cat $train/*.py | sha256sum)-$n
if [ "$(cat $test/stamp 2>/dev/null)" != "$stamp" ]; then
    rm -rf $test
    "$python" $train/make_test.py $test --talk -n "$n"
    echo "$stamp" >$test/stamp
fi
rm -rf tests/data/talk
"$python" $train/make_test.py tests/data/talk --talk --jpeg -n 96
"$python" $train/agree.py --python "$python"
"$python" $train/card.py "$@"
git status --short
