# Keeps one private server: starts and ends it as told on stdin, and when stdin closes (its owner has finished, or was
# killed) ends it and removes DIR. The text before this defines prepare, serve and forget, and last_signal: the one that
# ends the server at once.
# Owner says: start -> pid; KILL, INT, TERM -> stopped.

# A trap, not an ignore: an ignored signal would stay ignored in the server. Any of them ends the loop below, and a closed
# stdout (PIPE) must not keep the keeper from cleaning up.
trap : HUP INT TERM PIPE

alive() {
    grep -qs '^State:.[^ZX]' "/proc/$1/status" # neither a zombie nor gone
}

descendants() {
    for child in $(cat "/proc/$1/task/"*/children); do
        echo "$child"
        descendants "$child"
    done
}

end_server() {
    family=
    if [ "$1" = KILL ]; then
        kill -s STOP "$pid" # so that it starts no further child meanwhile
        family=$(descendants "$pid")
    fi
    # shellcheck disable=SC2086 # a list of pids
    kill -s "$1" "$pid" $family
    wait "$pid"
    for member in $family; do
        while alive "$member"; do sleep 0.01; done
    done
    pid=
}

pid=
(prepare) </dev/null >>"$DIR/log" 2>&1
echo "prepared $?"
while read -r word; do
    if [ "$word" = start ]; then
        serve </dev/null >>"$DIR/log" 2>&1 &
        pid=$!
        echo "$pid"
    else
        end_server "$word" 2>>"$DIR/log"
        echo stopped
    fi
done
[ -z "$pid" ] || end_server "$last_signal" 2>>"$DIR/log"
forget
rm -rf -- "$DIR"
kill -s KILL 0 # whatever else is left in this process group, and this shell
