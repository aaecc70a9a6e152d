#!/usr/bin/env bash
# Dependencies between rooms point down (src/floors.txt), basenames are unique, and nothing
# outside base/mem.c takes memory by itself. Prints each offence, exits 1 when there is one.
set -uo pipefail
cd "$(dirname "$0")/../.."
bad=0

complain()
{
    echo "$*"
    bad=1
}

# What a room may include, besides itself and the headers in include/. The table is src/floors.txt's,
# which the build follows, too; this check also sees what no compiler reads.
allowed()
{
    sed -n "s/^$1: *//p" src/floors.txt
}

room_of() # FILE
{
    case $1 in
    src/*) echo "$1" | cut -d/ -f2 ;;
    *) echo "${1%%/*}" ;;
    esac
}

check_file() # FILE
{
    local room target name
    room=$(room_of "$1")
    while read -r name; do
        case $name in
        kernels/amx_model.h) continue ;; # tests/kernels: only tests define FV_AMX_MODEL
        *..*) complain "$1: \"$name\": name the room and the file"; continue ;; # no way around the floors
        esac
        [ -e "$(dirname "$1")/$name" ] && continue # same folder
        [ -e "include/$name" ] && continue
        case $room in
        cli | server)
            [ -e "$room/$name" ] && continue
            case $name in program/task.h | program/sniff.h | program/grammar.h | program/serve.h) continue ;; esac # src/eval/task.h says why
            complain "$1: includes \"$name\"; programs use only the headers in include/"
            continue ;;
        esac
        if [ ! -e "src/$name" ]; then
            complain "$1: \"$name\" is neither in include/ nor room/file under src/"
            continue
        fi
        target=${name%%/*}
        [ "$target" = "$room" ] && continue
        case " $(allowed "$room") " in
        *" $target "*) ;;
        *) complain "$1: $room may not include $target (\"$name\")" ;;
        esac
    done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$1")
}

files=$(find src cli server -name '*.[ch]' 2>/dev/null | sort)
for file in $files; do
    check_file "$file"
done

# kernels/ knows pointers and sizes: no files, no threads, no memory of its own.
# selfcheck.c and prefer.c format sentences, nothing else.
for file in $(find src/kernels -name '*.[ch]' ! -name selfcheck.c ! -name prefer.c 2>/dev/null); do
    if grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<(stdio|pthread|fcntl|unistd|threads|sys/.*)\.h>' "$file"; then
        complain "$file: kernels use no files and no threads"
    fi
done

same=$(find src cli server include tests bench fuzz examples -name '*.[ch]' 2>/dev/null | sed 's|.*/||' | sort | uniq -d)
[ -z "$same" ] || complain "names used twice: $same"

if grep -nE '(^|[^_[:alnum:]])(malloc|calloc|realloc|posix_memalign|aligned_alloc|strdup|strndup|asprintf)[[:space:]]*\(' \
    $(find src -name '*.[ch]' ! -path src/base/mem.c); then
    complain "memory is taken by fv_alloc and its friends only"
fi
if grep -nE '(^|[^_[:alnum:]])(printf|puts|putchar|abort|exit)[[:space:]]*\(|fprintf[[:space:]]*\([[:space:]]*std(err|out)' \
    $(find src -name '*.[ch]'); then
    complain "the library neither prints nor exits"
fi

[ $bad -eq 0 ] && echo "includes: $(echo "$files" | wc -l) files, all pointing down"
exit $bad
