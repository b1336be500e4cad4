# Makes a root directory that holds the system's programs, read-only, and what follows, and runs a
# program in it. What is not named here, such as the server's data, is not there for the engine: a
# hole in the engine or in its isolation shows nothing of it.
#
# TOP (oci|chroot) (host|none) [(ro|rw) DIRECTORY PLACE]... -- PROGRAM [ARGUMENT]...
set -eu
top=$1 isolation=$2 network=$3
shift 3
mount -t tmpfs -o mode=755,size=8m,nr_inodes=1k sbs "$top"
cd "$top"
mkdir -p dev/pts dev/shm etc/pki/tls/certs etc/ssl/certs old proc run sys tmp var/tmp
for name in bin lib lib32 lib64 libx32 sbin usr; do
  if [ -h "/$name" ]; then
    cp -P "/$name" "$name"
  elif [ -d "/$name" ]; then
    mkdir "$name"
    mount --bind -o ro "/$name" "$name"
  fi
done
# The engine puts the names of a file's owner into the history: they must not come from the machine.
echo root:x:0:0:root:/:/bin/sh > etc/passwd
echo root:x:0: > etc/group
printf 'passwd: files\ngroup: files\nhosts: files dns\n' > etc/nsswitch.conf
echo 127.0.0.1 localhost > etc/hosts
: > etc/resolv.conf
for name in ld.so.cache ssl/certs/ca-certificates.crt pki/tls/certs/ca-bundle.crt; do
  if [ -f "/etc/$name" ]; then cp -L "/etc/$name" "etc/$name"; fi
done
if [ "$network" = host ] && [ -f /etc/resolv.conf ]; then cp -L /etc/resolv.conf etc/resolv.conf; fi
for name in full null random tty urandom zero; do
  : > "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o nosuid,nodev,noexec,size=64m shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o nosuid,nodev,mode=755,size=8m run run
mount -t proc -o nosuid,nodev,noexec proc proc
# The runtimes need the control groups.
if [ "$isolation" = oci ]; then
  mount --rbind /sys sys
else
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
fi
while [ "$1" != -- ]; do
  mkdir -p ".$3"
  mount --bind -o "$1" "$2" ".$3"
  shift 3
done
shift
pivot_root . old
umount -l /old
rmdir /old
mount -o remount,ro,bind /
exec "$@"
