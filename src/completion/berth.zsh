#compdef berth
# zsh completion for berth: this file as _berth in a directory of $fpath, or `source <(berth completion zsh)`.
_berth() {
    local -a words_of described
    local word about
    while IFS=$'\t' read -r word about; do
        words_of+=("$word")
        described+=("${word}${about:+  -- $about}")
    done < <("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#words_of} )); then
        compadd -l -d described -a words_of
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _berth ]]; then
    _berth "$@"
else
    compdef _berth berth
fi
