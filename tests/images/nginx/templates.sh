#!/bin/sh
# Writes a configuration file for each template, with the values of the environment's variables in it.
set -e
templates=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
suffix=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
output=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}

[ -d "$templates" ] || exit 0
# Only variables that there are: nginx's own, as $host, stay as they are.
names=$(env | sed -n 's/^\([A-Za-z_][A-Za-z_0-9]*\)=.*/${\1}/p')
cd "$templates"
find . -type f -name "*$suffix" | while read -r file; do
    target=$output/${file%"$suffix"}
    mkdir -p "$(dirname "$target")"
    envsubst "$names" <"$file" >"$target"
done
