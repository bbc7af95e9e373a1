"""Completion scripts for bash, zsh and fish, one file a command, under the names the shells look for.

What they ask for and get is told in `toolroll.cli.completing`.
"""

from __future__ import annotations

from toolroll.cli import Tool

_BASH = r"""
# Completion of %(name)s for bash.
%(function)s() {
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
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD %(variable)s=bash_complete "$1" 2> /dev/null)
}
complete -o nosort -F %(function)s %(name)s
"""
_ZSH = r"""
#compdef %(name)s
# Completion of %(name)s for zsh.
%(function)s() {
    local line kind value help
    local -a lines parts globs plain described
    local -x COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) %(variable)s=zsh_complete
    lines=("${(@f)$(%(name)s 2> /dev/null)}")
    for line in $lines; do
        parts=("${(@ps:\t:)line}")
        kind=$parts[1] value=$parts[2] help=$parts[3]
        case $kind in
            plain)
                if [[ -n $help ]]; then described+=("${value//:/\\:}:$help"); else plain+=("$value"); fi
                ;;
            dir) _files -/ ;;
            file)
                globs=(${${(s: :)value}/#/\*})
                if (( $#globs )); then _files -g "$globs"; else _files; fi
                ;;
        esac
    done
    (( $#described )) && _describe -V %(name)s described -U
    (( $#plain )) && compadd -V values -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(function)s "$@"
else
    compdef %(function)s %(name)s
fi
"""
_FISH = r"""
# Completion of %(name)s for fish.
function %(function)s
    set -l typed (commandline -ct)
    for line in (COMP_WORDS=(commandline -cp) COMP_CWORD=$typed %(variable)s=fish_complete %(name)s 2> /dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case plain
                printf '%%s\t%%s\n' $parts[2] $parts[3]
            case dir
                __fish_complete_directories $typed ''
            case file
                if test -z "$parts[2]"
                    __fish_complete_path $typed ''
                else
                    __fish_complete_directories $typed ''
                    for suffix in (string split ' ' -- $parts[2])
                        for path in $typed*$suffix
                            printf '%%s\n' $path
                        end
                    end
                end
        end
    end
end
complete --no-files --keep-order --command %(name)s --arguments '(%(function)s)'
"""
_SCRIPTS = (
    (_BASH, "completions/bash/{}.bash"),
    (_ZSH, "completions/zsh/_{}"),
    (_FISH, "completions/fish/{}.fish"),
)


def completion_files(tool: Tool) -> dict[str, str]:
    """Path in the source tree and text of each script of a command."""
    name = str(tool.name)
    word = name.replace("-", "_")
    words = {"name": name, "function": f"_{word}_completion", "variable": f"_{word}_COMPLETE".upper()}
    return {path.format(name): (script % words).removeprefix("\n") for script, path in _SCRIPTS}
