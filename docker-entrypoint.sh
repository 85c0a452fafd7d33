#!/usr/bin/env bash
# Starts pman in a container, as a user that is not root.
#
#   docker run IMAGE [--FLAG ...]     pman with these flags
#   docker run IMAGE pman_do ...      pman_do, as the same user
#   docker run IMAGE COMMAND ...      any other command, as the user the container was started as
#
# Environment:
#   PMAN_UID, PMAN_GID    who to become when started as root; 10001 unless set, 0 stays root
#   PMAN_DBPATH           folder of the job DB, made for that user where it is missing
#   PMAN_DOCKER_VOLUME    volume of the engine whose mount point becomes STOREBASE, unless that is set
#   DOCKER_HOST           the engine; /var/run/docker.sock unless set
set -euo pipefail

readonly python=/opt/pman/bin/python
readonly state_folder=/var/lib/pman

warn() {
    printf 'docker-entrypoint: %s\n' "$*" >&2
}

die() {
    warn "$@"
    exit 2
}

# Print the socket file of the engine, nothing where there is none.
engine_socket() {
    local host=${DOCKER_HOST:-unix:///var/run/docker.sock}
    if [[ $host == unix://* && -S ${host#unix://} ]]; then
        printf '%s\n' "${host#unix://}"
    fi
}

# Without STOREBASE jobs still run wherever pman sees the same paths as the engine: no reason to fail.
find_store_base() {
    local said
    # -I: nothing that lies in the working folder is imported, which jobs can write to.
    if said=$("$python" -I -W ignore -c '
import sys, docker
print(docker.from_env(timeout=10).volumes.get(sys.argv[1]).attrs["Mountpoint"])
' "$PMAN_DOCKER_VOLUME" 2>&1); then
        export STOREBASE=$said
    else
        warn "STOREBASE is not set: volume '$PMAN_DOCKER_VOLUME' was not found: ${said##*$'\n'}"
    fi
}

# Make the folder of the job DB for user $1 and group $2. One that holds something is left as it is:
# if it is not theirs, pman says so.
prepare_db_folder() {
    local folder=${PMAN_DBPATH:-$state_folder/db}
    if [[ -L $folder ]] || { [[ -e $folder ]] && [[ -n $(ls -A -- "$folder") ]]; }; then
        return
    fi
    install -d -m 0700 -o "$1" -g "$2" -- "$folder" || warn "cannot make '$folder' for user $1"
}

# Replace this process by the command, as user PMAN_UID, who gets the group of the engine's socket.
give_up_root() {
    local uid=${PMAN_UID:-10001} gid=${PMAN_GID:-10001} socket group groups
    [[ $uid =~ ^[0-9]+$ ]] || die "PMAN_UID is '$uid', expected a number"
    [[ $gid =~ ^[0-9]+$ ]] || die "PMAN_GID is '$gid', expected a number"
    if ((uid == 0)); then
        exec "$@"
    fi
    groups=$gid
    for group in $(id -G); do # those of --group-add; 0 is root's own
        ((group == 0)) || groups+=,$group
    done
    socket=$(engine_socket)
    if [[ -n $socket ]]; then
        groups+=,$(stat -L -c %g -- "$socket")
    fi
    local become=(setpriv --reuid "$uid" --regid "$gid" --groups "$groups" --inh-caps=-all --no-new-privs)
    if [[ -n $socket ]] && ! "${become[@]}" test -w "$socket"; then
        warn "user $uid may not use $socket, though it has its group: look at its mode"
    fi
    prepare_db_folder "$uid" "$gid"
    if [[ ${HOME:-/} == / || ${HOME:-/} == /root ]]; then
        export HOME=$state_folder
    fi
    exec "${become[@]}" -- "$@"
}

stay_user() {
    local socket
    socket=$(engine_socket)
    if [[ -n $socket && ! -w $socket ]]; then
        warn "user $(id -u) may not use $socket: add --group-add $(stat -L -c %g -- "$socket")"
    fi
    if [[ ! -w ${HOME:-/} ]]; then # a user without an entry in /etc/passwd
        export HOME=$state_folder
    fi
    exec "$@"
}

if [[ $# -eq 0 || $1 == -* ]]; then
    set -- pman "$@"
fi
case $1 in
pman | pman_do) ;;
*) exec "$@" ;;
esac
if [[ -n ${PMAN_DOCKER_VOLUME:-} && -z ${STOREBASE:-} ]]; then
    find_store_base
fi
if (($(id -u) == 0)); then
    give_up_root "$@"
else
    stay_user "$@"
fi
