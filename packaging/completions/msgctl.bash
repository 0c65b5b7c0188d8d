# Completion of msgctl(1) for bash. It runs nothing, so that it is quick.

_msgctl() {
    local common='-H --host -p --port --timeout --tls --ca --cert --key --pin -h --help'
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
    local flags prefix=''

    # bash cuts --file=x into three words.
    if [[ $current == '=' ]]; then
        current=''
    elif [[ $previous == '=' ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --) return ;; # nothing but text, which is the user's own
            -H | --host | -p | --port | --timeout | --ca | --cert | --key | --pin | -f | --file | \
                --session | -c | --count | -i | --interval | -w | --deadline | --retry)
                [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++))
                ((i++))
                ;;
            -*) ;;
            *) [[ $verb ]] || verb=${COMP_WORDS[i]} ;;
        esac
    done

    # The value of a short option may stand with it, behind flags without one: -qfapp.log
    case $verb in
        send) flags='qh' ;;
        *) flags='h' ;;
    esac
    if [[ $current =~ ^(-[$flags]*([fH]))(.+)$ && ($verb == send || ${BASH_REMATCH[2]} == H) ]]; then
        prefix=${BASH_REMATCH[1]} previous=-${BASH_REMATCH[2]} current=${BASH_REMATCH[3]}
    fi

    case $previous in
        -H | --host)
            if [[ $current == /* ]]; then
                _msgctl_files
            else
                mapfile -t COMPREPLY < <(compgen -P "$prefix" -A hostname -- "$current")
            fi
            return
            ;;
        -f | --file | --ca | --cert | --key)
            _msgctl_files
            return
            ;;
        -p | --port | --timeout | --pin | -c | --count | -i | --interval | -w | --deadline | \
            --retry | --session) return ;;
    esac

    local words=''
    case $verb in
        '') words="ping send terminate $common -V --version" ;;
        ping) words="-c --count -i --interval -w --deadline --retry --json $common" ;;
        send) words="-f --file --session --whole -q --quiet --retry --json $common" ;;
        terminate) words="--password-stdin $common" ;;
    esac
    # The words of a message are the user's own.
    [[ $verb && $current != -* ]] && return
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

# Files that begin with $current; $prefix stands before them in the same word.
_msgctl_files() {
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -P "$prefix" -f -- "$current")
}

complete -F _msgctl msgctl
