#!/usr/bin/env bash
# Checks a running server: --connect, it is reached over TCP; --innodb_initialized, its tables are there.
# While the database is made, the server has no TCP port: it is not healthy yet.
set -euo pipefail

query() { mariadb --defaults-extra-file=/var/lib/mysql/.my-healthcheck.cnf --skip-column-names --batch --execute "$1"; }

[[ $# -gt 0 ]] || { echo "usage: ${0##*/} --connect | --innodb_initialized ..." >&2 && exit 64; }
for check; do
    case $check in
        --connect) query 'SELECT 1' >/dev/null ;;
        --innodb_initialized)
            query "SELECT 1 FROM information_schema.ENGINES WHERE engine = 'InnoDB' AND support IN ('YES', 'DEFAULT')" | grep -qx 1
            ;;
        *) echo "${0##*/}: '$check' is not a check: --connect, --innodb_initialized" >&2 && exit 64 ;;
    esac
done
