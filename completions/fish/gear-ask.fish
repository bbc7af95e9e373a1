# Completion of gear-ask for fish.
function _gear_ask_completion
    set -l typed (commandline -ct)
    for line in (COMP_WORDS=(commandline -cp) COMP_CWORD=$typed _GEAR_ASK_COMPLETE=fish_complete gear-ask 2> /dev/null)
        set -l parts (string split \t -- $line)
        switch $parts[1]
            case plain
                printf '%s\t%s\n' $parts[2] $parts[3]
            case dir
                __fish_complete_directories $typed ''
            case file
                if test -z "$parts[2]"
                    __fish_complete_path $typed ''
                else
                    __fish_complete_directories $typed ''
                    for suffix in (string split ' ' -- $parts[2])
                        for path in $typed*$suffix
                            printf '%s\n' $path
                        end
                    end
                end
        end
    end
end
complete --no-files --keep-order --command gear-ask --arguments '(_gear_ask_completion)'
