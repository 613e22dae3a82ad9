#!/usr/bin/env bash
# Makes the database of a new container in DATADIR, and runs what lies in /docker-entrypoint-initdb.d. The arguments are
# the server and its options.
set -euo pipefail

note() { printf '%(%F %T)T [Note] %s: %s\n' -1 "${0##*/}" "$1"; }
fail() { printf '%(%F %T)T [ERROR] %s: %s\n' -1 "${0##*/}" "$1" >&2 && exit 1; }

# setting NAME [OLD]: the value of MARIADB_NAME or of the older MYSQL_OLD, or of the file that either with _FILE names.
setting() {
    local name file
    for name in "MARIADB_$1" "MYSQL_${2-$1}"; do
        file=${name}_FILE
        [[ -z ${!name-} || -z ${!file-} ]] || fail "$name and $file are both set: only one of them can be"
        [[ -z ${!name-} ]] || { printf '%s' "${!name}" && return; }
        [[ -z ${!file-} ]] || { printf '%s' "$(<"${!file}")" && return; }
    done
}

# query OPTION...: runs the SQL that it reads, as root, on the server that is not reached from outside.
query() { mariadb --no-defaults --socket "$socket" --user root --password="$root" --batch "$@"; }

random() { head --bytes 24 /dev/urandom | base64 --wrap 0; }

# accounts.sh makes SQL of them.
export MARIADB_ROOT_PASSWORD MARIADB_ROOT_HOST MARIADB_DATABASE MARIADB_USER MARIADB_PASSWORD
MARIADB_ROOT_PASSWORD=$(setting ROOT_PASSWORD)
if [[ -n $(setting RANDOM_ROOT_PASSWORD) ]]; then
    MARIADB_ROOT_PASSWORD=$(random)
    note "GENERATED ROOT PASSWORD: $MARIADB_ROOT_PASSWORD"
elif [[ -z $MARIADB_ROOT_PASSWORD && -z $(setting ALLOW_EMPTY_ROOT_PASSWORD ALLOW_EMPTY_PASSWORD) ]]; then
    fail 'there is no database yet, and no password for its root:
  set MARIADB_ROOT_PASSWORD, MARIADB_ALLOW_EMPTY_ROOT_PASSWORD or MARIADB_RANDOM_ROOT_PASSWORD'
fi
MARIADB_ROOT_HOST=$(setting ROOT_HOST) MARIADB_DATABASE=$(setting DATABASE)
MARIADB_USER=$(setting USER) MARIADB_PASSWORD=$(setting PASSWORD)

socket=/run/mysqld/mysqld.sock root=
note "making the system's tables in $DATADIR"
mariadb-install-db --datadir="$DATADIR" --auth-root-authentication-method=normal --skip-test-db "${@:2}" >/dev/null
"$@" --socket="$socket" --skip-networking --skip-log-bin --skip-slave-start &
server=$!
for ((try = 0; try < 300; try++)); do
    query <<<'SELECT 1' >/dev/null 2>&1 && break
    [[ -d /proc/$server ]] || fail 'the server ended while its database was made'
    sleep 0.2
done
[[ -n $(setting INITDB_SKIP_TZINFO) ]] || mariadb-tzinfo-to-sql --skip-write-binlog /usr/share/zoneinfo | query --database mysql
accounts.sh "$DATADIR" | query
root=$MARIADB_ROOT_PASSWORD
for file in /docker-entrypoint-initdb.d/*; do
    [[ -f $file ]] || continue
    note "running $file"
    case $file in
        *.sh)
            # One that is not executable is sourced, and may leave variables for the next.
            # shellcheck source=/dev/null
            if [[ -x $file ]]; then "$file"; else . "$file"; fi
            ;;
        *.sql) query --database "$MARIADB_DATABASE" <"$file" ;;
        *.sql.gz) gunzip --stdout "$file" | query --database "$MARIADB_DATABASE" ;;
        *.sql.xz) xzcat "$file" | query --database "$MARIADB_DATABASE" ;;
        *.sql.zst) zstd --decompress --stdout "$file" | query --database "$MARIADB_DATABASE" ;;
        *) note "ignoring $file" ;;
    esac
done
kill "$server"
wait "$server"
note 'the database is made'
