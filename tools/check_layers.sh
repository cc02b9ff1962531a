#!/bin/sh
# check_layers.sh - who includes whom, against tools/layers.txt. Also: file
# names are unique, no file is over 800 lines, no room header over 400.
set -eu
cd "$(dirname "$0")/.."
awk '
FNR == 1 { file = FILENAME; split(file, p, "/"); room = p[2] }
FILENAME == "tools/layers.txt" {
    if ($0 ~ /^#/ || $0 == "") next
    name = $1; sub(":", "", name); known[name] = 1
    for (i = 2; i <= NF; i++) may[name, $i] = 1
    next
}
!(room in known) { print file ": room \"" room "\" is not in tools/layers.txt"; bad = 1; nextfile }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    target = $0; sub(/^[^"]*"/, "", target); sub(/".*/, "", target)
    if (target == "lori_core.h") next
    if (target == "lori.h") {
        if (room != "api" && room != "cli" && room != "job") {
            print file ":" FNR ": only job, api and cli may include lori.h"; bad = 1
        }
        next
    }
    if (split(target, t, "/") < 2) {
        print file ":" FNR ": include \"" target "\" names no room"; bad = 1; next
    }
    if (t[1] != room && !((room, t[1]) in may)) {
        print file ":" FNR ": " room " may not include " t[1] " (tools/layers.txt)"; bad = 1
    }
    if (t[1] != room && t[2] ~ /_i\.h$/) {
        print file ":" FNR ": \"" target "\" is private to " t[1]; bad = 1
    }
}
END { exit bad }
' tools/layers.txt $(find src -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | sort)
twice=$(find src tests bench include tools -type f \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.sh' -o -name '*.py' \) |
    sed 's,.*/,,' | sort | uniq -d)
if [ -n "$twice" ]; then
    echo "file names that occur twice: $twice"
    exit 1
fi
find src include tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' | xargs wc -l |
    awk '$2 != "total" && $1 > 800 { print $2 ": " $1 " lines, 800 is the limit"; bad = 1 }
         $2 ~ /^src\/[a-z]+\/[a-z]+\.h$/ && $1 > 400 { print $2 ": " $1 " lines, 400 is the limit of a room header"; bad = 1 }
         END { exit bad }'
echo "layers: fine"
