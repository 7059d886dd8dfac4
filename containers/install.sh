#!/bin/sh
# Makes the environment of an image from its lock files: install.sh REQUIREMENTS...
# Takes strip from an image with binutils, mounted at /tools.
set -eu
# The base image's own, found before there is another one of that name.
python=$(command -v python)
"$python" -m venv --without-pip /opt/flowers
for requirements; do
    # A lock file is the whole list, so nothing is looked for behind it.
    "$python" -m pip --python /opt/flowers/bin/python --disable-pip-version-check install \
        --no-deps --require-hashes --no-warn-script-location --requirement "$requirements"
done
# What packages ship and no step reads: their own tests, type stubs, and the C sources of what is
# compiled.
find /opt/flowers/lib -type d -name tests -prune -exec rm -r {} +
find /opt/flowers/lib \( -name '*.c' -o -name '*.pyi' \) -delete
site=/opt/flowers/lib/python3.11/site-packages
# What matplotlib and rich bring for what no step does: PDF, PostScript and formulas, which need fontTools
# and more fonts than the one of our charts, and colours for source code.
if [ -d "$site/matplotlib" ]; then
    find "$site/fontTools" -mindepth 1 -maxdepth 1 ! -name __init__.py ! -name agl.py ! -name misc \
        -exec rm -r {} +
    rm "$site"/fontTools/misc/*.so
    find "$site/matplotlib/mpl-data/fonts" -type f ! -name 'DejaVuSans.ttf' ! -name 'DejaVuSans-*.ttf' \
        ! -name 'LastResort*' -delete
    rm -r "$site/matplotlib/mpl-data/sample_data"
fi
rm -r "$site/pygments/lexers"
# Symbols that only a debugger reads, where wheels come with many; an image may lack some of these.
libraries=$(dirname "$(find /tools/usr/lib -name 'libbfd-*.so')")
for package in PIL contourpy cryptography kiwisolver matplotlib simplejpeg yaml; do
    [ ! -d "$site/$package" ] || find "$site/$package" -name '*.so' \
        -exec env LD_LIBRARY_PATH="$libraries" /tools/usr/bin/strip --strip-unneeded {} +
done
