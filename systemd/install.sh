#!/bin/sh
# Puts Outpost under /opt/outpost with its users, folders and units; run again, it upgrades.
# Configuration and recordings are never touched. `./run install` calls it; `./run install dock`
# adds what a dock for body cameras needs.
set -eu
umask 022
cd "$(dirname "$0")/.."
target=/opt/outpost

say() { echo "Outpost: $*" >&2; }

role=${1-camera}
case $role in
camera | dock) ;;
*)
    say "install: unknown role: $role; allowed: camera, dock"
    exit 2
    ;;
esac
if [ "$(id -u)" != 0 ]; then
    say "install writes to $target and /etc: sudo ./run install"
    exit 1
fi

if [ "$PWD" != $target ]; then
    mkdir -p $target
    # What a new version no longer has must go.
    rm -rf $target/agent $target/drivers $target/firmware_sim $target/docs $target/systemd
    tar -cf - --exclude=__pycache__ agent drivers firmware_sim docs configs systemd \
        run requirements.lock README.md LICENSE NOTICE | tar -xf - --no-same-owner -C $target
fi
$target/run setup
ln -sf $target/.venv/bin/outpost /usr/local/bin/outpost

install -D -m 0644 systemd/outpost.service /etc/systemd/system/outpost.service
install -D -m 0644 systemd/outpost-receiver.service /etc/systemd/system/outpost-receiver.service
install -D -m 0644 systemd/outpost.sysusers /etc/sysusers.d/outpost.conf
install -D -m 0644 systemd/outpost.tmpfiles /etc/tmpfiles.d/outpost.conf
systemd-sysusers /etc/sysusers.d/outpost.conf
systemd-tmpfiles --create /etc/tmpfiles.d/outpost.conf
if [ ! -e /etc/outpost/outpost.toml ]; then
    install -m 0640 -o root -g outpost "configs/$role.toml" /etc/outpost/outpost.toml
fi
if [ "$role" = dock ]; then
    install -D -m 0644 systemd/outpost-mount.socket /etc/systemd/system/outpost-mount.socket
    install -D -m 0644 systemd/outpost-mount@.service /etc/systemd/system/outpost-mount@.service
    install -D -m 0644 systemd/outpost.service.d/dock.conf \
        /etc/systemd/system/outpost.service.d/dock.conf
    install -D -m 0644 systemd/outpost-dock.rules /etc/udev/rules.d/80-outpost-dock.rules
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    if [ "$role" = dock ]; then
        udevadm control --reload
        systemctl enable --now outpost-mount.socket
    fi
    systemctl try-restart outpost outpost-receiver
fi

cat <<'TEXT'
Outpost is installed. Next:
  1. edit /etc/outpost/outpost.toml; the files that it names must be readable by the group outpost
     (a dock: `outpost dock learn 1 2 3 …` prints its slots)
  2. outpost check --config /etc/outpost/outpost.toml
  3. systemctl enable --now outpost
  4. systemctl status outpost
TEXT
