# fish completion for berth: this file in ~/.config/fish/completions, or `berth completion fish | source`.
function __berth_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] complete -- $words[2..-1] "$current" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c berth -f -a '(__berth_complete)'
