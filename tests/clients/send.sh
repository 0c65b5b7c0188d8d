#!/bin/sh
# send.sh HOST PORT <LINES: archives each line of standard input, in line framing.
# Prints what was archived; the status is 1 unless every line was. Needs OpenBSD's nc.
sent=$(mktemp) || exit
trap 'rm -f "$sent"' EXIT
{ echo PING; tee "$sent" | sed 's/^/MESG /'; } | nc -N "$1" "$2" |
    awk -v sent="$sent" '
        NR == 1 && $0 != "PONG" { print "no msgd there" >"/dev/stderr"; exit 1 }
        /^MESG /                { print substr($0, 6) }
        /^FAIL /                { print "line " NR - 1 ": " $0 >"/dev/stderr"; failed++ }
        END                     { while ((getline line <sent) > 0) lines++
                                  exit failed || NR != lines + 1 }'
