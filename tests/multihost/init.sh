#!/bin/bash
# Process 1 of a host: makes the host's own file system, says "up" and then only reaps orphans.
#   init.sh NAME DISK SHARED...    DISK: folder on a tmpfs that outlives a crash; SHARED: folders that hosts may read
set -euo pipefail
name=$1 disk=$2
shift 2
root=$disk/root
mkdir -p "$disk"/{changes,work,tmp,home} "$root"
chmod 1777 "$disk/tmp"

hostname "$name"
mount -t overlay -o "lowerdir=/,upperdir=$disk/changes,workdir=$disk/work" "$name" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" 2>/dev/null || mount --rbind /sys "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup" 2>/dev/null || true
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777,size=1g shm "$root/dev/shm"
mount -t tmpfs -o mode=755 run "$root/run"
mount --bind "$disk/tmp" "$root/tmp"
mount --bind "$disk/home" "$root/root"
for folder in "$@"; do # what lies in /tmp or /root, or on another disk, would not be seen otherwise
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
echo "$name" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"

mkdir -p "$root/outside"
cd "$root"
pivot_root . outside
umount -l /outside
rmdir /outside
ip link set lo up
echo up
trap 'exit 0' TERM
while :; do # a shell as process 1 waits for orphans, too
    sleep 1000 &
    wait $! || true
done
