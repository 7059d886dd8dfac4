#!/bin/sh
# Makes the environment of an image from its lock file: install.sh REQUIREMENTS KFP
set -eu
# The base image's own, found before there is another one of that name.
python=$(command -v python)
install() {
    "$python" -m pip --python /opt/flowers/bin/python --disable-pip-version-check \
        install --require-hashes --no-warn-script-location "$@"
}
"$python" -m venv --without-pip /opt/flowers
install --requirement "$1"
# A task needs 3 MB of kfp, and none of the clients of Kubernetes and Cloud Storage behind it.
install --no-deps --requirement "$2"
