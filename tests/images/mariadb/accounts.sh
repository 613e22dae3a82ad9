#!/usr/bin/env bash
# Prints the SQL of a new database's accounts: root, the user of MARIADB_USER with its MARIADB_DATABASE, and the one of
# healthcheck.sh, whose password is left in the data directory, the argument.
set -euo pipefail

# text VALUE, name VALUE: as SQL has them.
text() {
    local escaped=${1//\\/\\\\}
    printf "'%s'" "${escaped//\'/\\\'}"
}
name() { printf '%s' "\`${1//\`/\`\`}\`"; }

root=$(text "$MARIADB_ROOT_PASSWORD") host=$(text "${MARIADB_ROOT_HOST:-%}")
database=$(name "$MARIADB_DATABASE")
# In a GRANT, "_" and "%" stand for any character or text.
pattern=${database//_/\\_} pattern=${pattern//%/\\%}
user="$(text "$MARIADB_USER")@'%'"
health=$(head --bytes 24 /dev/urandom | base64 --wrap 0)

echo "SET SESSION sql_mode='';"
echo "DROP USER IF EXISTS 'root'@'127.0.0.1', 'root'@'::1', 'root'@'$HOSTNAME';"
echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $root;"
if [[ $host != "'localhost'" ]]; then
    echo "CREATE USER 'root'@$host IDENTIFIED BY $root;"
    echo "GRANT ALL ON *.* TO 'root'@$host WITH GRANT OPTION;"
    echo "GRANT PROXY ON ''@'%' TO 'root'@$host WITH GRANT OPTION;"
fi
for address in localhost 127.0.0.1 ::1; do
    echo "CREATE USER 'healthcheck'@'$address' IDENTIFIED BY '$health';"
done
if [[ $MARIADB_DATABASE ]]; then
    echo "CREATE DATABASE IF NOT EXISTS $database;"
fi
if [[ $MARIADB_USER && $MARIADB_PASSWORD ]]; then
    echo "CREATE USER $user IDENTIFIED BY $(text "$MARIADB_PASSWORD");"
    [[ -z $MARIADB_DATABASE ]] || echo "GRANT ALL ON $pattern.* TO $user;"
fi

umask 0077
printf '[mariadb-client]\nprotocol=tcp\nuser=healthcheck\npassword=%s\n' "$health" >"$1/.my-healthcheck.cnf"
