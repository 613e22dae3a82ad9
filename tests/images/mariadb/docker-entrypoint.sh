#!/usr/bin/env bash
# Runs mariadbd as the user mysql on a data directory that belongs to mysql, and makes the database where there is none;
# runs anything else as it is.
set -euo pipefail

# Options are the server's; mysqld is its older name.
[[ ${1-} == -* ]] && set -- mariadbd "$@"
[[ ${1-} == mariadbd || ${1-} == mysqld ]] || exec "$@"
for argument; do
    case $argument in
        --help | -\? | --version | -V | --print-defaults) exec "$@" ;;
    esac
done

# Where the server would keep its data, by its files and options; without an answer they are wrong, and it says how.
settings=$("$@" --verbose --help --log-bin-index="$(mktemp --dry-run)" 2>/tmp/mariadbd.error) || {
    cat /tmp/mariadbd.error >&2
    exit 1
}
rm -f /tmp/mariadbd.error
data=$(awk '$1 == "datadir" {print $2; exit}' <<<"$settings")

if [[ $EUID -eq 0 ]]; then
    mkdir -p "$data" /run/mysqld
    find "$data" /run/mysqld ! -user mysql -exec chown mysql:mysql {} +
    export HOME=/var/lib/mysql
    exec setpriv --reuid mysql --regid mysql --init-groups -- "$0" "$@"
fi

[[ -d ${data}mysql ]] || DATADIR=$data initialize-database.sh "$@"
exec "$@"
