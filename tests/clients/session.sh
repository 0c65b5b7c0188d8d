#!/bin/sh
# session.sh HOST PORT ID <LINES: archives line k of standard input as message k of a session, once,
# over as many connections as it takes. Prints what was archived, but for what a broken connection
# has swallowed. Status 0: every line is archived; 1: one was refused, or the session is not ours;
# 69: nobody there. Written from msgd-protocol(7) alone. Needs OpenBSD's nc.
host=$1 port=$2 id=$3 last=0 tries=0
lines=$(mktemp) || exit
trap 'rm -f "$lines"' EXIT
cat >"$lines"
total=$(wc -l <"$lines")
fail() { printf 'session: %s\n' "$2" >&2; exit "$1"; }
while :; do
    number=$(printf 'PING\nSESS %s\n' "$id" | nc -N "$host" "$port" | awk '
        NR == 1 && $0 != "PONG" { exit }
        NR == 2                 { print $1 == "SESS" ? $2 : $0 }')
    case $number in
        FAIL*) fail 1 "$number" ;;
        '') tries=$((tries + 1)); [ $tries -lt 5 ] || fail 69 'nobody there'; sleep 0.1; continue ;;
    esac
    [ "$number" -ge "$last" ] || fail 1 "the server has lost the session: $number of $last"
    [ "$number" -le "$total" ] || fail 1 "somebody else writes this session: $number of $total"
    [ "$number" -lt "$total" ] || exit 0
    last=$number
    { printf 'PING\nSESS %s %s\n' "$id" $((number + 1))
      tail -n +$((number + 1)) "$lines" | sed 's/^/MESG /'; } | nc -N "$host" "$port" | awk '
        /^MESG / { print substr($0, 6) }
        /^FAIL / { print >"/dev/stderr"; exit 1 }' || exit 1
done
