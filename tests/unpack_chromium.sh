#!/bin/sh
# Debian's headless Chromium into the folder $1, as $1/chromium-headless-shell, for the tests that open reports. Unpacked,
# not installed: it needs no rights and changes nothing else. What the machine has of it already is not fetched again.
set -eu
folder=$(cd "$1" && pwd)
browser=$folder/chromium-headless-shell

for installed in chromium-headless-shell chromium; do
    if found=$(command -v "$installed") && "$found" --headless --version >/dev/null 2>&1; then
        ln -sf "$found" "$browser"
        exit 0
    fi
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/debs" "$work/lists" "$work/cache"

fetch() {  # it, and all that it needs and this machine lacks; `$@`: more options of apt-get
    plan=$(apt-get "$@" install --simulate --no-install-recommends chromium-headless-shell) &&
        cd "$work/debs" && apt-get -o APT::Sandbox::User=root "$@" -qq download $(echo "$plan" | awk '/^Inst /{print $2}')
}
# Each Chromium is soon replaced by the next: where the machine's own list of packages still has the old one, a fresh
# list is fetched beside it.
(fetch) || {
    set -- -o APT::Sandbox::User=root -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
    apt-get "$@" -qq update
    (fetch "$@")
}

rm -rf "$folder/chromium"
mkdir "$folder/chromium"
for package in "$work"/debs/*.deb; do
    dpkg -x "$package" "$folder/chromium"
done
cat >"$browser" <<END
#!/bin/sh
root='$folder/chromium'
libraries=\$(echo "\$root"/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH="\$libraries:\$libraries/pulseaudio"
[ -e /etc/fonts/fonts.conf ] || export FONTCONFIG_SYSROOT="\$root"
exec "\$root/usr/lib/chromium/chromium-headless-shell" "\$@"
END
chmod +x "$browser"
"$browser" --version
