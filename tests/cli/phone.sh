# Sourced behind cases.sh by the scripts of fastvlm device: the real adb client, with a server of its
# own that is ended here, and phones that are stand-ins (tests/standins/adbd.py).
standins=$root/tests/standins
command -v adb >/dev/null 2>&1 || { echo "skipped: no adb (Debian, Ubuntu: apt install adb)"; exit 77; }
"$fastvlm" --version >/dev/null 2>&1 && [ "$(uname -m)" = x86_64 ] ||
    { echo "skipped: the program does not run on this machine itself"; exit 77; }

free_port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ANDROID_ADB_SERVER_PORT=$(free_port)
export ANDROID_ADB_SERVER_PORT HOME=$work/home ADB_LOCAL_TRANSPORT_MAX_PORT=5553 ADB_MDNS_AUTO_CONNECT=0
unset ANDROID_SERIAL SKIP_PUSH QNN_SDK_ROOT FV_QNN_DIR FASTVLM_PHONE_PROGRAM ADB_SERVER_SOCKET
mkdir -p "$HOME"
phones=()
end_all() {
    adb kill-server >/dev/null 2>&1
    for pid in "${phones[@]}"; do kill "$pid" 2>/dev/null; done
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap end_all EXIT

# phone NAME ARGUMENT...: a phone in $work/NAME; $port is its, $serial its name.
phone() {
    local name=$1
    shift
    : >"$work/$name.port"
    python3 "$standins/adbd.py" "$work/$name" "$@" >"$work/$name.port" 2>"$work/$name.err" &
    phones+=($!)
    phone_pid=$!
    for _ in $(seq 300); do [ -s "$work/$name.port" ] && break; sleep 0.1; done
    port=$(cat "$work/$name.port")
    serial=127.0.0.1:$port
    adb connect "$serial" >/dev/null 2>&1
}
# faults NAME FAULT...: from now on. Unless "android" is among them, the phone is not Android, where
# this machine's program could not run.
faults() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    case " $* " in *" android "*) ;; *) set -- "$@" prop.ro.build.version.release= ;; esac
    printf '%s\n' "$@" >"$work/$name/faults"
}
# on NAME: the phone's directory of ours
on() { echo "$work/$1/data/local/tmp/fastvlm"; }
here() { grep -c "^send $2" "$work/$1/log" 2>/dev/null || true; }
# ended PROGRAM: no process of the phone's runs it, or soon none will.
ended() {
    for _ in $(seq 100); do
        pgrep -f "$1" >/dev/null || return 0
        sleep 0.1
    done
    return 1
}
