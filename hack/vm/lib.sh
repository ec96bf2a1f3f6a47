# Shared by run and test: where things are cached, and making what is missing.
# shellcheck shell=bash

cache=${BERTH_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/berth-vm}
# Part of the image's name: raise it when what is below changes.
generation=7

say() { printf 'hack/vm: %s\n' "$*" >&2; }
die() { say "$*"; exit 125; }

# Installs the Debian packages whose commands are missing. Arguments: command=package...
need() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || [ -e "${pair%%=*}" ] || missing+=("${pair#*=}")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}" \
        >/dev/null || die "could not install ${missing[*]}; is this Debian, with a working apt?"
}

# The berth-oci to test: a path that was given, or else what cargo builds for development.
berth_oci() {
    [ -z "$1" ] || { echo "$1"; return; }
    cargo build --quiet -p berth-oci --message-format=json |
        jq -r 'select(.executable and .target.name == "berth-oci").executable'
}

# Adds programs and the libraries that they are linked with to `copies`. The guest has the same C library.
with_libraries() {
    local file library
    for file in "$@"; do
        copies+=(--copy "$file")
        while read -r library; do
            copies+=(--copy "$library")
        done < <(ldd "$file" | grep -o '/lib[^ ]*so[^ ]*' | grep -v -e ld-linux -e 'libc\.so')
    done
}

# The kernel of Debian 12's cloud images: NVMe and ext4 are built in, so that no initramfs is needed.
make_kernel() {
    [ -e "$cache/kernel/vmlinuz" ] && return
    local package work
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-6\.1\..*\)/\1/p' | head -1)
    [ -n "$package" ] || die "apt knows no Debian 12 cloud kernel (linux-image-cloud-amd64)"
    say "fetching $package"
    work=$(mktemp -d "$cache/kernel.XXXXXX")
    (cd "$work" && apt-get -qq download "$package") || die "could not download $package"
    dpkg -x "$work"/*.deb "$work/root"
    rm -f "$work"/*.deb
    mv "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
    rm -rf "$cache/kernel"
    mv "$work" "$cache/kernel"
}

# A minimal Debian with the kernel's modules, as a disk image.
make_image() {
    [ -e "$image" ] && return
    local mirror work package
    local include=iproute2,nftables,procps,kmod,busybox-static,systemd,dbus,dbus-user-session,uidmap,python3,apparmor
    # What the programs of nfs-common and nfs-kernel-server are linked with.
    include+=,netbase,libdevmapper1.02.1,libevent-core-2.1-7,libgssapi-krb5-2,libkeyutils1,libnfsidmap1,libsqlite3-0,libtirpc3,libwrap0
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk '$2 == "bookworm" { print $1; exit }')
    [ -n "$mirror" ] || die "apt has no source for Debian 12 (bookworm)"
    say "making the guest's root with debootstrap (a minute or two, once)"
    work=$(mktemp -d "$cache/root.XXXXXX")
    debootstrap --variant=minbase --include="$include" bookworm "$work" "$mirror" \
        >"$cache/debootstrap.log" 2>&1 || die "debootstrap failed; see $cache/debootstrap.log"
    # Unpacked only: installing them starts servers.
    for package in nfs-common nfs-kernel-server; do
        (cd "$work/tmp" && apt-get -qq download "$package") || die "could not download $package"
        dpkg --fsys-tarfile "$work/tmp/$package"_*.deb | tar -x -C "$work" --keep-directory-symlink
        rm "$work/tmp/$package"_*.deb
    done
    rm -rf "$work"/var/cache/apt/* "$work"/var/lib/apt/lists/* "$work"/usr/share/{doc,locale,man}
    cp -r "$cache"/kernel/root/lib/modules "$work/lib/"
    depmod -b "$work" "$(basename "$work"/lib/modules/*)"
    mkdir -p "$work/share"
    truncate -s 1G "$image.new"
    mkfs.ext4 -q -F -d "$work" "$image.new" || die "mkfs.ext4 failed"
    rm -rf "$work"
    # Other checkouts may still use other generations.
    find "$cache" -name 'root-*.ext4' -mtime +2 -delete
    mv "$image.new" "$image"
}

# Our init and systemd's units are put into the image whenever they changed: that takes no time, where a new image takes
# minutes.
update_init() {
    cat "$here/init" "$here"/berth.* >"$cache/init-$generation.new"
    cmp -s "$cache/init-$generation.new" "$cache/init-$generation" && [ "$cache/init-$generation" -nt "$image" ] && return
    cp "$image" "$image.new"
    debugfs -w "$image.new" >"$cache/debugfs.log" 2>&1 <<EOT
rm /berth-init
write $here/init /berth-init
sif /berth-init mode 0100755
rm /etc/systemd/system/berth.service
write $here/berth.service /etc/systemd/system/berth.service
rm /etc/systemd/system/berth.target
write $here/berth.target /etc/systemd/system/berth.target
EOT
    mv "$image.new" "$image"
    mv "$cache/init-$generation.new" "$cache/init-$generation"
}

prepare() {
    image=$cache/root-$generation.ext4
    [ "$(uname -m)" = x86_64 ] || die "only x86_64 machines are emulated so far"
    [ "$(id -u)" = 0 ] || die "must run as root (debootstrap and virtiofsd need it)"
    need qemu-system-x86_64=qemu-system-x86 /usr/lib/qemu/virtiofsd=qemu-system-common debootstrap=debootstrap \
        mkfs.ext4=e2fsprogs depmod=kmod
    mkdir -p "$cache"
    # One at a time makes the cache; the others wait.
    exec 9>"$cache/lock"
    flock 9
    make_kernel
    make_image
    update_init
    flock -u 9
}
