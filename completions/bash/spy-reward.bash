# Completion of spy-reward for bash.
_spy_reward_completion() {
    local kind value current=${COMP_WORDS[COMP_CWORD]} suffix found
    current=${current//\\/}
    current=${current#[\'\"]}
    [[ $current == = ]] && current=
    COMPREPLY=()
    while IFS=$'\t' read -r kind value _; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            dir | file)
                compopt -o filenames
                while IFS= read -r found; do COMPREPLY+=("$found"); done < <(
                    [[ $kind == dir || -n $value ]] && compgen -d -- "$current"
                    [[ $kind == file && -z $value ]] && compgen -f -- "$current"
                    for suffix in $value; do compgen -f -X "!*$suffix" -- "$current"; done
                )
                ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _SPY_REWARD_COMPLETE=bash_complete "$1" 2> /dev/null)
}
complete -o nosort -F _spy_reward_completion spy-reward
