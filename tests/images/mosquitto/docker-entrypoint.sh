#!/bin/sh
# Gives /mosquitto to the user mosquitto, which the server changes to, and runs the command.
set -eu

if [ "$(id -u)" = 0 ] && [ -d /mosquitto ]; then
    chown -R mosquitto:mosquitto /mosquitto
fi
exec "$@"
