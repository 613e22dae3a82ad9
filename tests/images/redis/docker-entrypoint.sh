#!/bin/sh
# Runs redis-server as the user redis, on a /data that belongs to redis; anything else as it is.
set -e

# Options, or a configuration file, are the server's.
case ${1-} in
    -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "${1-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
    [ -n "${SKIP_FIX_PERMS-}" ] || find . ! -user redis -exec chown redis:redis {} +
    if [ -z "${SKIP_DROP_PRIVS-}" ]; then
        exec setpriv --reuid redis --regid redis --init-groups --inh-caps=-all -- "$0" "$@"
    fi
fi

# Other containers may connect without a password, unless an option or the configuration file speaks of it.
if [ "${1-}" = redis-server ] && ! grep -qs -e '^ *protected-mode' -- "${2-}"; then
    case $* in
        *--protected-mode*) ;;
        *) set -- "$@" --protected-mode no ;;
    esac
fi

# Its files are nobody else's, unless whoever runs it says otherwise.
[ "$(umask)" != 0022 ] || umask 0077
exec "$@"
