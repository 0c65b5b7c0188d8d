#!/bin/sh
# bare.sh HOST PORT WORD...: archives the words as one message, in bare framing.
# Closing our side ends the message. Prints what was archived; the status is 1 unless it was.
host=$1 port=$2
shift 2
reply=$(printf 'PINGMESG %s' "$*" | nc -N "$host" "$port"; echo .)
reply=${reply%.}
case $reply in
    'PONGMESG '*) printf '%s\n' "${reply#PONGMESG }" ;;
    *) printf '%s\n' "$reply" >&2; exit 1 ;;
esac
