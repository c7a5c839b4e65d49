#!/bin/sh
# Runs all tests of the plugin and prints for each rule of CHECKLIST.md what became of those that hold it. Fails unless all passed.
set -u
cd "$(dirname "$0")" || exit 1
results=$(mktemp)
trap 'rm -f "$results"' EXIT
cargo test -p eni-cni -p eni-datapath --no-fail-fast >"$results" 2>&1
awk -F'|' '
    FNR == NR {
        if (match($0, /^test [a-z0-9_:]+ \.\.\. /)) {
            words = split($0, word, " ")
            names = split(word[2], name, "::")
            result[name[names]] = word[words]
        }
        next
    }
    $2 ~ /^ *[0-9]+ *$/ {
        rules++
        parts = split($4, part, "`")
        for (i = 2; i <= parts; i += 2) {
            found = part[i] in result ? result[part[i]] : "not run"
            printf "%3d  %-8s %s\n", $2, found, part[i]
            tests++
            passed += found == "ok"
        }
    }
    END {
        printf "%d rules, %d tests, %d passed\n", rules, tests, passed
        exit tests == 0 || passed != tests
    }
' "$results" CHECKLIST.md || { grep -E "^error|panicked|FAILED" "$results"; exit 1; }
