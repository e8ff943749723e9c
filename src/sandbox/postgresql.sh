# Debian keeps initdb and postgres out of PATH; the newest version wins, unless PATH says which one.
if ! { command -v initdb && command -v postgres; } >/dev/null; then
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V); do
        PATH=$bin:$PATH
    done
fi
last_signal=QUIT # at once, but shared memory is released

# PostgreSQL refuses to run as root.
owner=
if [ "$(id -u)" -eq 0 ]; then
    owner=nobody
    ! id -u postgres >/dev/null 2>&1 || owner=postgres
fi

as_owner() {
    if [ -n "$owner" ]; then
        exec env -i PATH="$PATH" setpriv --reuid "$owner" --regid "$(id -g "$owner")" --clear-groups -- "$@"
    fi
    exec env -i PATH="$PATH" "$@"
}

prepare() {
    command -v initdb && command -v postgres || exit 127
    [ -z "$owner" ] || chown "$owner" "$DIR" "$DIR/password" "$DIR/postgresql.conf" || exit
    cd "$DIR" || exit
    as_owner initdb --pgdata="$DIR/data" --username=paxflow --pwfile="$DIR/password" --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync
}

serve() {
    cd "$DIR" || exit
    as_owner postgres -D "$DIR/data" -c config_file="$DIR/postgresql.conf"
}

# A postmaster that was killed, and not started again, leaves its lock file and the shared memory named there.
forget() {
    [ ! -e "$DIR/data/postmaster.pid" ] || ipcrm -m "$(awk 'NR == 7 { print $2 }' "$DIR/data/postmaster.pid")"
}
