#!/bin/bash
# eval as a user calls it: two models on pictures, the score of a test, and the same verdicts as score.py.
. "$(dirname "$0")/cases.sh"
demo=$root/models/demo
task=$root/tests/data/demo

run eval --help
expect "eval --help" 0
check "eval --help has an example" grep -q "^  fastvlm eval " <<<"$out"

# ---- two models
run eval "$tiny" "$tiny" "$picture" --vision bf16 --decoder bf16 -n 6 --svg "$work/loss.svg"
expect "eval against bf16" 0
check "a stage" grep -qE "^vision.network.4.0 +[3-7][0-9]\.[0-9] +0\.9999" <<<"$out"
check "the stem stays f32" grep -qE "^vision.stem.2 +equal +1" <<<"$out"
check "a picture" grep -qE "^image.png +[3-7][0-9]\.[0-9] +0\.999" <<<"$out"
check "text, own" grep -qE "^TEST's own image tokens +6 +[0-9.e-]+ +[0-9.e-]+ +[0-9.e-]+ +[0-9]+\.[0-9]+$" <<<"$out"
check "text, given" grep -qE "^REF's image tokens +6 " <<<"$out"
check "the plot" grep -q "vision bf16, decoder bf16 against vision f32, decoder f32" "$work/loss.svg"
run pack "$tiny" -o "$work/z8.gguf" --vision f32 --decoder z8
echo "no picture" >"$work/broken.png"
run eval "$tiny" "$work/z8.gguf" "$picture" "$work/broken.png" -n 6 --features ref --json
expect "eval of a packed file" 0 "skipped:" "broken.png"
if command -v python3 >/dev/null; then
    check "its figures" python3 - "$work/out" <<'END'
import json, sys
r = json.load(open(sys.argv[1]))
assert r["pictures"] == 1 and r["skipped"] == 1 and r["own"] is None
assert r["test"]["decoder"] == "z8" and r["reference"]["decoder"] == "f32"
assert 1e-6 < r["ref"]["kl_mean"] < 0.05 and r["ref"]["kl_max"] >= r["ref"]["kl_median"] > 0 and r["ref"]["tokens"] == 6
stages = {s["name"]: s for s in r["stages"]}
assert stages["image_tokens"]["own"] == {"sqnr": None, "cosine": 1.0}
assert 20 < stages["decoder.layer.2"]["ref"]["sqnr"] < 60 and 0.99 < stages["decoder.layer.2"]["ref"]["cosine"] < 1
assert r["images"][0]["features"]["cosine"] == 1.0 and r["images"][0]["answer"]
END
fi

# ---- what calibrated rounding is worth: on pictures that it has not seen
divergence() # FILE: the mean over REF's tokens, of two questions
{
    for question in "Describe the image." "What shapes are there?"; do
        run eval "$demo" "$1" "$task/images" --features ref --prompt "$question"
        expect "eval of $(basename "$1"), $question" 0
        awk '/^REF.s image tokens/ { print $5 }' <<<"$out" >>"$1.kl"
    done
}
run pack "$demo" -o "$work/search.gguf" --vision f32 --decoder q4 --rounding search
run pack "$demo" "$demo/calibration" -o "$work/calibrated.gguf" --vision f32 --decoder q4
expect "pack, calibrated rounding" 0
divergence "$work/search.gguf"
divergence "$work/calibrated.gguf"
check "q4 is closer to f32: $(paste -sd' ' "$work/search.gguf.kl" "$work/calibrated.gguf.kl" | tr '\n' ';')" awk '
    { sum[FILENAME] += $1; n[FILENAME]++ }
    END { exit !(n[ARGV[1]] == 2 && n[ARGV[2]] == 2 && sum[ARGV[2]] > 0 && sum[ARGV[2]] < 0.7 * sum[ARGV[1]]) }' \
    "$work/search.gguf.kl" "$work/calibrated.gguf.kl"

# ---- the demonstration test
run eval --task "$task" "$demo" --limit 33 --answers "$work/answers.jsonl"
expect "a task" 0
score=$out
check "its table" grep -qE "^all +33 +[0-9]+ +[0-9.]+$" <<<"$out"
run eval --task "$task" --score "$work/answers.jsonl" --limit 33
check "the same score from the file" test "$out" = "$score"
check "every question has an answer" test -z "$err"
head -n 21 "$work/answers.jsonl" >"$work/fewer.jsonl"
run eval --task "$task" --score "$work/fewer.jsonl" --limit 33
expect "missing answers are said" 0 "fewer.jsonl: no answer to 12 of 33 questions; they count as wrong"
check "and counted" grep -qE "^all +33 " <<<"$out"
run eval --task "$task" --score "$work/fewer.jsonl" --limit 33 --json
check "and in JSON" grep -q '"unanswered": 12' <<<"$out"
run eval --task "$task" "$demo" "$demo" --limit 3
check "two models" test "$(grep -c "^all " <<<"$out")" = 2
run eval --task "$task" --limit 3 --json
if grep -q "no model" <<<"$err"; then
    expect "a program without a model" 2
else
    expect "the built-in model" 0 "demonstration model"
    check "its name" grep -q '"model": "built-in demonstration model"' <<<"$out"
fi
run eval "$tiny" "$tiny" "$picture" --vision f32 --decoder f32 --kv q8 -n 4 --json
expect "an 8-bit cache" 0
check "nothing else differs" grep -q '"least_image_tokens_cosine": 1.0' <<<"$out"
run eval --task "$task" --score "$work/answers.jsonl" --min 100
expect "too few" 1 "fewer than 100 %"
run eval --task "$task" --score "$work/answers.jsonl" --min 1
expect "enough" 0

# ---- conversations
mkdir "$work/talk"
ln -s "$task/images" "$work/talk"
cat >"$work/talk/questions.jsonl" <<END
{"images": ["images/00000.jpg", "images/00010.jpg"], "turns": [{"kind": "two", "question": "What differs?", "answer": "A"},
 {"question": "Really?", "said": "Yes"}, {"kind": "correction", "question": "Look again.", "answer": "B"}]}
{"images": [], "turns": [{"kind": "noimage", "question": "What is red?", "answer": "There is no image."}]}
END
sed -i -z 's/,\n {/, {/' "$work/talk/questions.jsonl"
printf '{"answer": "a."}\n{"answer": "C"}\n{"question": "What is red?", "answer": "there is no image"}\n' >"$work/talk/answers.jsonl"
run eval --task "$work/talk" --score "$work/talk/answers.jsonl"
expect "conversations" 0
talks=$out
check "by turn" test "$(sed 's/  */ /g' <<<"$out" | tr '\n' ';')" = \
    "kind n correct %;correction 1 0 0.0;noimage 1 1 100.0;two 1 1 100.0;turn 1 2 2 100.0;turn 3 1 0 0.0;all 3 2 66.7;"
run eval --task "$work/talk" --score "$work/talk/answers.jsonl" --limit 1 --json
check "turns in JSON" grep -q '"turn": 3, *$' <<<"$out"
check "no question of the second" grep -q '"n": 2, *$' <<<"$out"
run eval --task "$work/talk" "$demo" --answers "$work/said.jsonl" -q
expect "conversations held" 0
check "their answers" test "$(grep -c '"turn": [13], "question"' "$work/said.jsonl")" = 3

if command -v python3 >/dev/null; then
    python3 "$root/tools/train/score.py" "$work/talk/questions.jsonl" "$work/talk/answers.jsonl" >"$work/table"
    check "score.py's table of conversations" test "$talks" = "$(cat "$work/table")"
    head -n 33 "$task/questions.jsonl" >"$work/questions.jsonl"
    python3 "$root/tools/train/score.py" "$work/questions.jsonl" "$work/answers.jsonl" >"$work/table"
    check "score.py's table" test "$score" = "$(cat "$work/table")"
    # Wanted answers of the test, answers made of the same words and of traps, both scored.
    mkdir "$work/crafted"
    python3 - "$root" "$work/crafted" <<'END'
import json, os, random, sys
root, out = sys.argv[1:]
rnd = random.Random(1)
qs = [json.loads(l) for l in open(os.path.join(root, "tests/data/demo/questions.jsonl"))]
parts = ['"', '""', " ", "  ", "\n", ".", ",", "_", "empty", "12 shapes", "3 shapes", "1 shapes", "red circle", "Blue STAR", "gray moons", "é", "²",
         "\u0661 shapes", "\u212a", "\u0130", "\u00a0", "\u2003", "\x1c", "a", "\u0301"]
def change(s):
    words = s.split(" ")
    for _ in range(rnd.randrange(3)):
        what, at = rnd.randrange(6), rnd.randrange(len(words))
        if what == 0:
            rnd.shuffle(words)
        elif what == 1:
            words[at] = words[at].swapcase()
        elif what == 2:
            words.insert(at, rnd.choice(parts))
        elif what == 3:
            words[at] += rnd.choice(parts)
        elif what == 4:
            words = rnd.choice(qs)["answer"].split(" ")
        else:
            words[at] = words[at].rstrip(".")
    return " ".join(words)
with open(os.path.join(out, "questions.jsonl"), "w") as q, open(os.path.join(out, "answers.jsonl"), "w") as a:
    for i in range(3000):
        x = rnd.choice(qs)
        wanted = change(x["answer"]) if i % 3 == 0 else x["answer"]
        kind = "describe" if i % 2 else x["kind"]
        q.write(json.dumps(dict(image="p", kind=kind, question="q", answer=wanted, history=[])) + "\n")
        a.write(json.dumps(dict(answer=change(wanted))) + "\n")
END
    run eval --task "$work/crafted" --score "$work/crafted/answers.jsonl" --json
    expect "crafted answers" 0
    check "the verdicts of score.py" python3 - "$root" "$work/out" "$work/crafted/answers.jsonl" <<'END'
import json, os, sys
sys.path.insert(0, os.path.join(sys.argv[1], "tools/train"))
sys.dont_write_bytecode = True
from score import correct
given = [json.loads(l)["answer"] for l in open(sys.argv[3])]
got = json.load(open(sys.argv[2]))["results"][0]["answers"]
assert len(got) == len(given) == 3000
right = 0
for g, answer in zip(got, given):
    assert g["correct"] == correct(g["kind"], g["wanted"], answer), (g, answer)
    right += g["correct"]
assert 600 < right < 2700, right
END
else
    echo "skip: no python3, so no comparison with score.py"
fi

# ---- what is wrong
run eval
expect "nothing" 2 "expected two models and at least one image"
run eval "$tiny" "$tiny"
expect "no picture" 2 "expected two models and at least one image"
run eval "$tiny" "$demo" "$picture"
expect "two different models" 1 "the same model in different precisions"
run eval "$tiny" "$tiny" "$work/broken.png"
expect "only broken pictures" 1 "none of 1 images can be read"
run eval "$tiny" "$tiny" "$work/none.png"
expect "no such image" 1 "no such image or directory"
run eval "$tiny" "$work/none" "$picture"
expect "no such model" 1 "no such model"
run eval "$tiny" "$tiny" "$picture" -n 1 --svg "$work/none/x.svg"
expect "no such folder" 1 "none/x.svg: cannot create"
run eval "$tiny" "$tiny" "$picture" --min 3
expect "min without task" 2 "need --task"
mkdir "$work/empty"
run eval --task "$work/empty" "$demo"
expect "no questions" 1 "questions.jsonl"
run eval --task "$task" "$demo" --limit 1 --answers "$work/none/x"
expect "no folder for the answers" 1 "none/x: cannot create"
check "it is said before a question is asked" test -z "$out"
run eval --task "$task" "$demo" "$tiny" --answers "$work/x"
expect "answers of two" 2 "one model"
run eval --task "$task" "$demo" --svg "$work/x"
expect "a plot of a task" 2 "cannot be used with --task"
printf '{"image": "none.png", "kind": "k", "question": "q", "answer": "a", "history": []}\n' >"$work/questions.jsonl"
run eval --task "$work" "$demo" --answers "$work/x"
expect "a picture that is missing" 1 "none.png"
check "nothing is left" test ! -e "$work/x"
finish
