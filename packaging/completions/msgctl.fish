# Completion of msgctl(1) for fish.

set -l verbs ping send terminate
set -l no_verb "not __fish_seen_subcommand_from $verbs"

complete -c msgctl -f
complete -c msgctl -n $no_verb -a ping -d 'Measure the round-trip time to the server'
complete -c msgctl -n $no_verb -a send -d 'Send messages, and print them as they are archived'
complete -c msgctl -n $no_verb -a terminate -d 'Ask the server to stop, with its password'
complete -c msgctl -n $no_verb -s V -l version -d 'Show the version'

complete -c msgctl -s H -l host -x -a '(__fish_print_hostnames)' -d 'Name, address or socket of the server'
complete -c msgctl -s p -l port -x -d 'Its port'
complete -c msgctl -l timeout -x -d 'Seconds to wait for an answer that is due'
complete -c msgctl -l tls -d 'Speak TLS, and verify the name of the server'
complete -c msgctl -l ca -r -F -d 'Its certificate must be of this authority'
complete -c msgctl -l cert -r -F -d 'Show this certificate to the server'
complete -c msgctl -l key -r -F -d 'The private key of --cert'
complete -c msgctl -l pin -x -d 'Its certificate must have this fingerprint'
complete -c msgctl -s h -l help -d 'Show help'

set -l ping '__fish_seen_subcommand_from ping'
complete -c msgctl -n $ping -s c -l count -x -d 'Stop after so many requests'
complete -c msgctl -n $ping -s w -l deadline -x -d 'Stop after so many seconds'
complete -c msgctl -n $ping -s i -l interval -x -d 'Seconds between two'

set -l send '__fish_seen_subcommand_from send'
complete -c msgctl -n $send -s f -l file -r -F -d 'Send the lines of this file'
complete -c msgctl -n $send -l session -x -d 'The session of this name: each message is archived once'
complete -c msgctl -n $send -l whole -d 'All of the input is one message'
complete -c msgctl -n $send -s q -l quiet -d 'Print only what went wrong'

set -l both '__fish_seen_subcommand_from ping send'
complete -c msgctl -n $both -l retry -x -d 'Seconds to keep trying when there is no connection'
complete -c msgctl -n $both -l json -d 'Print one JSON object a line'

set -l terminate '__fish_seen_subcommand_from terminate'
complete -c msgctl -n $terminate -l password-stdin -d 'Read the password from standard input'
