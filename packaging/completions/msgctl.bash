# Completion of msgctl(1) for bash. It runs nothing, so that it is quick.

_msgctl() {
    local common='-H --host -p --port --timeout -h --help'
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' i

    # bash cuts --file=x into three words.
    if [[ $current == '=' ]]; then
        current=''
    elif [[ $previous == '=' ]]; then
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    fi

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -H | --host | -p | --port | --timeout)
                [[ ${COMP_WORDS[i + 1]} == '=' ]] && ((i++))
                ((i++))
                ;;
            -*) ;;
            *)
                verb=${COMP_WORDS[i]}
                break
                ;;
        esac
    done

    COMPREPLY=()
    case $previous in
        -H | --host)
            mapfile -t COMPREPLY < <(compgen -A hostname -- "$current")
            return
            ;;
        -f | --file)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
            return
            ;;
        -p | --port | --timeout | -c | --count | -i | --interval | -w | --deadline | --retry) return ;;
    esac

    local words=''
    case $verb in
        '') words="ping send terminate $common -V --version" ;;
        ping) words="-c --count -i --interval -w --deadline --retry --json $common" ;;
        send) words="-f --file --whole -q --quiet --retry --json $common" ;;
        terminate) words="--password-stdin $common" ;;
    esac
    # The words of a message are the user's own.
    [[ $verb && $current != -* ]] && return
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _msgctl msgctl
