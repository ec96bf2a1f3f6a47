#compdef berth
# zsh completion for berth: this file as _berth in a directory of $fpath, or `source <(berth completion zsh)`.
_berth() {
    local -a whole whole_about open open_about
    local word about
    while IFS=$'\t' read -r word about; do
        # What ends so goes on without a space: web:/path, jsonpath={...}.
        if [[ $word == *[:=] ]]; then
            open+=("$word")
            open_about+=("${word}${about:+  -- $about}")
        else
            whole+=("$word")
            whole_about+=("${word}${about:+  -- $about}")
        fi
    done < <("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#whole} + ${#open} )); then
        compadd -l -d whole_about -a whole
        compadd -l -S '' -d open_about -a open
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _berth ]]; then
    _berth "$@"
else
    compdef _berth berth
fi
