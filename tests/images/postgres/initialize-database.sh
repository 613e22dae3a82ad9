#!/usr/bin/env bash
# Makes the database of a new container from POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, POSTGRES_INITDB_ARGS,
# POSTGRES_INITDB_WALDIR and POSTGRES_HOST_AUTH_METHOD, and runs what lies in /docker-entrypoint-initdb.d.
set -euo pipefail

# from_file NAME: takes the variable from the file that NAME_FILE names, as a secret is given.
from_file() {
    local file=$1_FILE
    [[ ${!file-} ]] || return 0
    [[ -z ${!1-} ]] || { echo "$1 and $file are both set: only one of them can be" >&2; exit 1; }
    export "$1=$(<"${!file}")"
}

# query DATABASE OPTION...: psql on the server that is not yet reachable from outside.
query() { psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER" --no-password --dbname "$1" "${@:2}"; }

run_scripts() {
    local file
    for file in /docker-entrypoint-initdb.d/*; do
        [[ -f $file ]] || continue
        printf '%s: running %s\n' "$0" "$file"
        case $file in
            *.sh)
                # One that is not executable is sourced, and may leave variables for the next.
                # shellcheck source=/dev/null
                if [[ -x $file ]]; then "$file"; else . "$file"; fi
                ;;
            *.sql) query "$POSTGRES_DB" --file "$file" ;;
            *.sql.gz) gunzip --stdout "$file" | query "$POSTGRES_DB" ;;
            *.sql.xz) xzcat "$file" | query "$POSTGRES_DB" ;;
            *) printf '%s: ignoring %s\n' "$0" "$file" ;;
        esac
    done
}

for name in POSTGRES_{USER,PASSWORD,DB,INITDB_ARGS}; do from_file "$name"; done
export POSTGRES_USER=${POSTGRES_USER:-postgres} POSTGRES_PASSWORD=${POSTGRES_PASSWORD-}
export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
if [[ -z $POSTGRES_PASSWORD && ${POSTGRES_HOST_AUTH_METHOD-} != trust ]]; then
    echo 'Error: there is no database yet, and no password for its superuser.' >&2
    echo '  Set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to let everyone in without one.' >&2
    exit 1
fi

# Options of initdb are words, as the documentation of the image has them.
read -ra options <<<"${POSTGRES_INITDB_ARGS-}"
[[ -z ${POSTGRES_INITDB_WALDIR-} ]] || options+=(--waldir "$POSTGRES_INITDB_WALDIR")
if [[ $POSTGRES_PASSWORD ]]; then
    initdb --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "$POSTGRES_PASSWORD") "${options[@]}"
else
    initdb --username "$POSTGRES_USER" "${options[@]}"
fi
printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"

# The options that the server will have, but no port that is reached from outside.
[[ ${1-} != postgres ]] || shift
pg_ctl --wait --options "$(printf '%q ' "$@" -c listen_addresses= -p 5432)" start
[[ $POSTGRES_DB == postgres ]] || query postgres --set "name=$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
run_scripts
pg_ctl --wait --mode fast stop
printf '\nThe database is made; the server starts.\n\n'
