#!/bin/bash
# run --json-schema, with a stand-in for llguidance (tests/standins/fake_llguidance.c); what the real
# one makes of schemas is in tools/test-schema.sh.
. "$(dirname "$0")/cases.sh"

echo '{"type": "object"}' >"$work/schema.json"
ask=(run "$tiny" --no-image -p Hello --json-schema "$work/schema.json")
unset FAKE_LLGUIDANCE FAKE_ANSWER

# ---- no library, or not the right one

unset FV_LLGUIDANCE
cp "$fastvlm" "$work/fastvlm" && fastvlm_there=$fastvlm fastvlm=$work/fastvlm
run "${ask[@]}"
expect "no library" 1 "JSON schemas need llguidance: expected libfastvlm_grammar.so in $work/ or in ../libexec/fastvlm/" "make builds it where cargo is installed"
check "no answer without it" test -z "$out"
cp "$FV_FAKE_LLGUIDANCE" "$work/libfastvlm_grammar.so"
run "${ask[@]}" -q
check "beside the program" test "$code $out" = '0 {"a":1}'
mkdir -p "$work/bin" "$work/libexec/fastvlm"
mv "$work/fastvlm" "$work/bin/" && mv "$work/libfastvlm_grammar.so" "$work/libexec/fastvlm/"
fastvlm=$work/bin/fastvlm
run "${ask[@]}" -q
check "as installed" test "$code $out" = '0 {"a":1}'
fastvlm=$fastvlm_there
export FV_LLGUIDANCE=$work/none.so
run "${ask[@]}"
expect "a file that is not there" 1 "none.so: cannot open: No such file"
echo "no library" >"$work/text.so"
FV_LLGUIDANCE=$work/text.so run "${ask[@]}"
expect "a file that is no library" 1 "text.so: not usable as llguidance: "
FV_LLGUIDANCE=$FV_FAKE_QNN/libQnnCpu.so run "${ask[@]}"
expect "another library" 1 "not usable as llguidance: it has no fastvlm_grammar_version"
export FV_LLGUIDANCE=$FV_FAKE_LLGUIDANCE
FAKE_LLGUIDANCE=version=1.0.0 run "${ask[@]}"
expect "another version" 1 "llguidance 1.0.0; expected version 1."
FAKE_LLGUIDANCE="tokens=too many" run "${ask[@]}"
expect "tokens refused" 1 "the model's tokens cannot be used by llguidance: too many"

# ---- schemas

while IFS='|' read -r name schema message; do
    printf '%b' "$schema" >"$work/bad.json"
    run run "$tiny" --no-image -p Hello --json-schema "$work/bad.json"
    expect "$name" 1 "schema: $message"
    check "$name: no answer" test -z "$out"
done <<'CASES'
empty||empty; expected a JSON object
not JSON|color: red|line 1, column 1: expected
cut off|{"type": "obj|line 1, column
an array|[1]|expected an object, found an array
a key twice|{"type": "object", "type": "array"}|
not UTF-8|{"title": "\\xff"}|
a NUL|{"title": "\\0"}|
something behind it|{} {}|
options of llguidance|{"x-guidance": {"lenient": true}}|x-guidance is set; expected a schema without it
CASES
python3 -c 'print("{\"title\": \"" + "a" * (1 << 20) + "\"}")' >"$work/large.json"
run run "$tiny" --no-image -p Hello --json-schema "$work/large.json"
expect "too large" 1 "more than 1048576 bytes, too long for a schema"
python3 -c 'print("{\"a\":" * 3000 + "1" + "}" * 3000)' >"$work/deep.json"
run run "$tiny" --no-image -p Hello --json-schema "$work/deep.json"
expect "too deep" 1 "schema: "
FAKE_LLGUIDANCE="schema=Unimplemented keys: [\"not\"].~ <backtrace> and a trace" run "${ask[@]}"
expect "one that cannot be enforced" 1 'schema: cannot be enforced: Unimplemented keys: ["not"]'
check "without the trace" test "$(grep -c trace <<<"$err")" = 0
run run "$tiny" --no-image -p Hello --json-schema "$work/none.json"
expect "no file" 1 "none.json: No such file"

# ---- answers

for schema in '{}' ' { } ' '\n{\n"type": "object"\n}\n'; do
    printf '%b' "$schema" >"$work/one.json"
    run run "$tiny" --no-image -p Hello -q --json-schema "$work/one.json"
    check "an answer to $schema" test "$code $out" = '0 {"a":1}'
done
"$fastvlm" run "$tiny" "$picture" --json-schema - --json -q --temperature 1.5 <"$work/schema.json" >"$work/out" 2>&1
check "the schema on standard input, the answer in JSON" python3 -c '
import json, sys
answer = json.load(open(sys.argv[1]))
assert answer["text"] == "{\"a\":1}" and answer["finish_reason"] == "stop", answer' "$work/out"
FAKE_ANSWER='{"name":"<|im_end|> éü 猫"}' run "${ask[@]}" -q
check "marks as text, characters of several tokens" test "$out" = '{"name":"<|im_end|> éü 猫"}'
run "${ask[@]}" -q -n 2
expect "cut off" 1 "cut off after 2 tokens and is not complete JSON"
FAKE_LLGUIDANCE=mask=3 run "${ask[@]}" -q
expect "a mask that cannot be computed" 1 "schema: too complex"
check "which ends the answer" test "${#out}" -lt 7
run "${ask[@]}" --stop x
expect "with --stop" 2 "--json-schema and --stop exclude each other"
run "${ask[@]}" --ignore-eos
expect "with --ignore-eos" 2 "--json-schema and --ignore-eos exclude each other"
finish
