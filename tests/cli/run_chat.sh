#!/bin/sh
# run_chat.sh - tests of `lori chat` on a tiny random model: through pipes, and
# in a terminal of its own (tests/cli/pty.c types and waits).
#   run_chat.sh LORI TINY_GGUF PTY
set -u
lori=$(readlink -f "$1")
tiny=$(readlink -f "$2")
pty=$(readlink -f "$3")
dir=$(mktemp -d "${TMPDIR:-/tmp}/lori-chat.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
cd "$dir" || exit 1
passed=0 failed=0
esc=$(printf '\033')
export TERM=xterm HOME="$dir" LC_ALL=C.UTF-8
unset NO_COLOR XDG_STATE_HOME

# libedit never frees the names that EL_ADDFN gives it.
echo leak:wcsdup >suppressions
export LSAN_OPTIONS="suppressions=$dir/suppressions:print_suppressions=0"

pass() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAIL: $1"
    tail -n 12 out err 2>/dev/null | cat -v | sed 's/^/    /'
}
check() { # NAME COMMAND...: the command succeeds
    name=$1
    shift
    if "$@"; then pass; else fail "$name"; fi
}
says() { # NAME TEXT [FILE]
    if grep -qF -- "$2" "${3:-out}"; then pass; else fail "$1: no '$2'"; fi
}
silent() { # NAME TEXT [FILE]
    if grep -qF -- "$2" "${3:-out}"; then fail "$1: '$2'"; else pass; fi
}
pipe() { # NAME EXIT INPUT OPTION...: exit status; the input has printf's escapes
    name=$1 code=$2
    printf "$3" >in
    shift 3
    "$lori" chat --model base --dtype f32 --max-new-tokens 8 "$@" <in >out 2>err
    got=$?
    if [ $got = "$code" ]; then pass; else fail "$name: exit $got, not $code"; fi
}
talk() { # NAME EXIT OPTION...: the script on standard input
    name=$1 code=$2
    shift 2
    "$pty" "$lori" chat --model base --dtype f32 --max-new-tokens 8 "$@" >out 2>err
    got=$?
    if [ $got = "$code" ]; then pass; else fail "$name: exit $got, not $code"; fi
}
contents() { sed -n "s/^ *\"$1\": \"\(.*\)\",*$/\1/p" "$2"; } # KEY FILE

"$tiny" tiny.gguf 1 && "$lori" import tiny.gguf small --dtype f32 >out 2>err || exit 1
cp -r small base # a context of 256 tokens there, of 200000 here
sed -i 's/"max_position_embeddings": 256/"max_position_embeddings": 200000/' base/config.json
for a in a b; do
    printf '{"prompt": "say", "completion": "%s %s %s"}\n' $a $a $a >$a.jsonl
    "$lori" train model_name_or_path=small train_file=$a.jsonl output_dir=adapter-$a dtype=f32 \
        max_steps=8 lora_rank=4 learning_rate=0.05 >out 2>err || fail "no adapter"
done

# ---- pipes ------------------------------------------------------------------
pipe "a line, a reply" 0 'hello\nagain\n' --greedy
check "two replies" test "$(wc -l <out)" = 2
silent "no escape codes" "$esc"
silent "no prompt" "> "
head -n 1 out >first
"$lori" generate --model base --dtype f32 --max-new-tokens 8 --greedy --chat --prompt hello >reply 2>err
check "as lori generate --chat" cmp -s first reply
pipe "JSON" 0 'hello\n' --greedy --json
says JSON '"completion_tokens": 8'
pipe "three quotes" 0 '"""one\ntwo"""\n/save q.json\n' --greedy
says "three quotes" '"content": "one\ntwo"' q.json
pipe "a slash" 0 '//etc\n/save s.json\n' --greedy
says "a slash" '"content": "/etc"' s.json
pipe "no UTF-8" 1 'a\377b\n'
says "no UTF-8" "lori: the message is not valid UTF-8; not sent" err
pipe "unknown command" 1 '/regne\n'
says "unknown command" "there is no command '/regne'; did you mean '/regen'?" err
pipe "unknown setting" 1 '/set temprature 1\n'
says "unknown setting" "did you mean 'temperature'?" err
pipe "bad value" 1 '/set top_k many\n'
says "bad value" "top-k does not take 'many'" err
pipe "nothing to regenerate" 1 '/regen\n'
pipe "unknown adapter" 1 '/adapter c\n' --adapter a=adapter-a
says "unknown adapter" "no adapter 'c' is open" err
pipe "no such file" 1 '/load no.json\n'
pipe "not a conversation" 1 '/load base/config.json\n'
says "not a conversation" "'base/config.json' is not a conversation" err
pipe "an existing file" 1 '/save first\n'
says "an existing file" "'first' exists; choose another name" err
pipe "load and go on" 0 '/load q.json\nthree\n/save q3.json\n/save q3.json\n' --greedy
check "loaded" test "$(contents role q3.json | tr '\n' ' ')" = "user assistant user assistant "
"$lori" chat --model nothing <in >out 2>err
check "no model" test $? = 1

# ---- settings and adapters change the replies ---------------------------------
pipe "seed 1" 0 'hello\n' --temperature 1 --seed 1
cp out s1
pipe "seed 1 again" 0 '/set temperature 1\n/set seed 1\nhello\n'
check "same seed, same reply" cmp -s s1 out
pipe "seed 2" 0 'hello\n' --temperature 1 --seed 2
check "another seed, another reply" sh -c '! cmp -s s1 out'
pipe adapters 0 'hello\n/clear\n/adapter b\nhello\n/clear\n/adapter none\nhello\n/clear\n/adapter x=adapter-a\nhello\n' \
    --greedy --adapter a=adapter-a --adapter b=adapter-b
check "three different replies" test "$(head -n 3 out | sort -u | wc -l)" = 3
check "the same adapter, opened later" test "$(sed -n 1p out)" = "$(sed -n 4p out)"
check "none: the base" test "$(sed -n 3p out)" = "$(cat first)"

# ---- a context that gets full ---------------------------------------------------
long=$(printf 'word %.0s' 1 2 3 4 5 6 7 8)
mv base large
mv small base
pipe "full: refused" 1 "$long\n$long\n$long\n$long\n" --greedy
says "full: refused" "leaves no room for a reply in the context of 256" err
pipe "full: oldest dropped" 0 "/system be brief\n$long\n$long\n$long\n$long\n/save full.json\n" --greedy --drop-oldest
says "full: oldest dropped" "messages are no longer sent" err
check "full: all are saved" test "$(contents role full.json | wc -l)" = 9
pipe "one message too long" 1 "$long$long$long$long$long$long$long\n" --drop-oldest
says "one message too long" "this message needs a context of" err
talk "full: asked" 0 --greedy <<END
wait >
send $long\n
wait tok/s
send $long\n
wait tok/s
send $long\n
wait tok/s
send $long\n
wait Leave out the oldest
send n\n
wait leaves no room for a reply
send $long\n
wait Leave out the oldest
send y\n
wait are no longer sent
wait tok/s
send /quit\n
end
END
mv base small
mv large base

# ---- a terminal -------------------------------------------------------------------
start=$(tr -cd '[:alnum:][:punct:]' <first | cut -c 1-2)
talk "Ctrl-C stops a reply" 0 --greedy --max-new-tokens 100000 <<END
wait >
send hello\n
wait $start
send \x03
wait stopped:
wait >
send /save stopped.json\n
wait 2 messages saved
send /set max-new-tokens 8\n
wait max-new-tokens
send again\n
wait tok/s
wait >
send \x04
end
END
says "the partial reply is kept and marked" '"partial": true' stopped.json
check "the partial reply is not whole" test "$(grep -o 'token' out | wc -l)" -ge 1
talk commands 0 --temperature 1 --adapter adapter-a <<END
wait adapter adapter-a, context of 200000 tokens
wait >
send forget this\x03hello\n
wait tok/s
wait >
send /save one.json\n
wait saved to one.json
send /regen\n
wait tok/s
send /save two.json\n
wait saved to two.json
send /system You are a test.\n
wait system message: You are a test.
send second\n
wait tok/s
send /undo\n
wait 2 are left
send /adapter\n
wait * default
wait   none
send /adapter none\n
wait adapter none from the next reply on
send \x1b[200~line one\rline two\x1b[201~\n
wait tok/s
send /save three.json\n
wait saved to three.json
send /hepl\n
wait did you mean '/help'?
send /help\n
wait /regen
wait >
send /clear\n
wait a new conversation
send /load three.json\n
wait 4 messages from three.json
send /quit\n
end
END
says "Ctrl-C forgot the line" '"content": "hello"' one.json
check "/regen: same question" test "$(contents content one.json | head -n 1)" = "$(contents content two.json | head -n 1)"
check "/regen: another reply" test "$(contents content one.json | tail -n 1)" != "$(contents content two.json | tail -n 1)"
says "/system" '"content": "You are a test."' three.json
silent "/undo" '"content": "second"' three.json
says "a paste is one message" '"content": "line one\nline two"' three.json
says colours "${esc}[1;36m>${esc}[0m"
says "history kept" hello .local/state/lori/chat_history
check "history is private" test "$(stat -c %a .local/state/lori/chat_history)" = 600
talk "history recalled" 0 --greedy <<'END'
wait >
send \e[A\e[A\e[A\e[A\e[A\e[A\e[A
pause 200
send \x15/undo\n
wait nothing to undo
send \e[A\e[A\n
wait >
send \x04
end
END
# The sampled reply holds control characters: a pipe gets them, a terminal not.
pipe "control characters" 0 'hello\n' --temperature 0.8 --max-new-tokens 12
check "control characters are there" grep -q "$(printf '[\001-\010\033]')" out
NO_COLOR=1 talk NO_COLOR 0 --temperature 0.8 --max-new-tokens 12 <<'END'
wait >
send hello\n
wait tok/s
send /quit\n
end
END
silent "NO_COLOR" "${esc}[2m"
silent "NO_COLOR, prompt" "${esc}[1;36m"
check "a terminal gets no control characters" sh -c "! sed 's/${esc}\[[?0-9;]*[a-zA-Z]//g' out | tr -d '\r' | grep -q '$(printf '[\001-\010\033]')'"
TERM=dumb talk "a dumb terminal" 0 --greedy <<'END'
wait > 
send hello\n
wait tok/s
send \x04
end
END
silent "a dumb terminal" "$esc"
cat >in <<'END'
wait >
send hello\n
wait tok/s
END
"$pty" "$lori" chat --model base --dtype f32 --greedy --max-new-tokens 8 <in >out 2>err
check "the terminal is closed" test $? = 98

echo "$passed passed, $failed failed"
[ $failed = 0 ]
