# bash completion for berth: `source <(berth completion bash)`, or this file in /etc/bash_completion.d.
_berth() {
    local line=${COMP_LINE:0:COMP_POINT} IFS=$' \t\n' current prefix
    local -a words
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    # Readline splits words at these letters, too, and replaces only what comes behind the last of them.
    prefix=${current%"${current##*[:=]}"}
    IFS=$'\n'
    COMPREPLY=($("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null | cut -f1))
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=] ]] && compopt -o nospace
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == "" ]] && COMPREPLY=()
    return 0
}
# Without a candidate it is a file.
complete -o default -F _berth berth
