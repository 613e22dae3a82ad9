#!/usr/bin/env bash
# Runs postgres as the user postgres on a PGDATA that belongs to postgres, and makes the database where there is none;
# runs anything else as it is.
set -euo pipefail

# Options are the server's.
[[ ${1-} == -* ]] && set -- postgres "$@"
[[ ${1-} == postgres ]] || exec "$@"
for argument; do
    case $argument in
        --help | -\? | --version | -V | --describe-config) exec setpriv --reuid postgres --regid postgres --clear-groups -- "$@" ;;
    esac
done

if [[ $EUID -eq 0 ]]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chmod 0700 "$PGDATA"
    chmod 3777 /var/run/postgresql
    find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres:postgres {} +
    export HOME=/var/lib/postgresql
    exec setpriv --reuid postgres --regid postgres --init-groups -- "$0" "$@"
fi

[[ -s $PGDATA/PG_VERSION ]] || initialize-database.sh "$@"
exec "$@"
