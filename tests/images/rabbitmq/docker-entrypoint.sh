#!/bin/sh
# Runs rabbitmq-server, and its tools, as the user rabbitmq, on a /var/lib/rabbitmq that belongs to rabbitmq;
# anything else as it is.
set -eu

case ${1-} in
    rabbitmq*) ;;
    *) exec "$@" ;;
esac

if [ "$(id -u)" = 0 ]; then
    [ "$1" != rabbitmq-server ] || find "$RABBITMQ_DATA_DIR" ! -user rabbitmq -exec chown rabbitmq:rabbitmq {} +
    exec setpriv --reuid rabbitmq --regid rabbitmq --init-groups -- "$0" "$@"
fi

# The server would make its cookie late: a health check that runs before, as root, would make one that is root's.
cookie=$HOME/.erlang.cookie
if [ "$1" = rabbitmq-server ] && [ ! -e "$cookie" ]; then
    (umask 0377 && head --bytes 24 /dev/urandom | base64 --wrap 0 >"$cookie")
fi

# A password may be in a file, as a secret is given.
for name in RABBITMQ_DEFAULT_USER RABBITMQ_DEFAULT_PASS; do
    file=$(printenv "${name}_FILE" || true)
    [ -z "$file" ] || export "$name=$(cat -- "$file")"
done
exec "$@"
