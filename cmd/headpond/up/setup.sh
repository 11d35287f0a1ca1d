#!/bin/sh
# Installs what `make run` (redis postgres npm) and `make test` (cc and chromium as
# well) need and this machine lacks. Does nothing, at once, when all is there.
#
#   setup.sh redis postgres npm cc chromium
#
# Only the programs are wanted, for servers of our own: the distribution's
# services are neither started now nor at the next boot. SETUP_ROOT is put in
# front of absolute paths; it is there for the test.
set -eu

root=${SETUP_ROOT:-}

say() { echo "setup: $*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

have_redis() {
	[ -n "${HEADPOND_REDIS_SERVER:-}" ] || have redis-server || have valkey-server ||
		[ -x "$root/usr/sbin/redis-server" ] ||
		[ -x "$root/opt/homebrew/opt/redis/bin/redis-server" ] || [ -x "$root/usr/local/opt/redis/bin/redis-server" ]
}

# The same places as in find.go.
have_postgres() {
	[ -z "${HEADPOND_PG_BIN:-}" ] || return 0
	if have postgres && have initdb; then return 0; fi
	for dir in "$(pg_config --bindir 2>/dev/null || true)" \
		"$root"/usr/lib/postgresql/*/bin "$root"/usr/pgsql-*/bin "$root"/usr/libexec/postgresql* \
		"$root"/opt/homebrew/opt/postgresql*/bin "$root"/usr/local/opt/postgresql*/bin "$root"/usr/local/pgsql/bin; do
		if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then return 0; fi
	done
	return 1
}

# cgo, and so the race detector, needs a C compiler.
have_cc() { have "${CC:-cc}" || have gcc || have clang; }

# The page at /dashboard is built with npm, and tested in a browser.
have_npm() { have npm && have node; }

have_chromium() { have chromium || have chromium-browser || have google-chrome || [ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ]; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

give_up() {
	say "please type:  $*"
	say "and then the same make again"
	exit 1
}

# packages apt|brew|other: the names of what is missing.
packages() {
	for part in $missing; do
		case "$1:$part" in
		apt:redis) printf ' redis-server' ;;
		apt:postgres) printf ' postgresql' ;;
		apt:cc) printf ' gcc libc6-dev' ;;
		apt:npm | other:npm) printf ' nodejs npm' ;;
		apt:chromium | other:chromium) printf ' chromium' ;;
		brew:npm) printf ' node' ;;
		brew:redis) printf ' redis' ;;
		brew:postgres) printf ' postgresql@17' ;;
		brew:cc) printf ' llvm' ;;
		other:redis) printf ' redis' ;;
		other:postgres) printf ' postgresql-server' ;;
		other:cc) printf ' gcc' ;;
		esac
	done
}

# policy-rc.d is how Debian asks whether a package may start its service: 101 is
# "no" (/usr/share/doc/init-system-helpers). One that is there already is left alone.
with_apt() {
	names=$(packages apt)
	if [ "$(id -u)" != 0 ] && ! have sudo; then
		give_up "su -c 'apt-get update && apt-get install -y$names'"
	fi
	say "installing$names"
	as_root apt-get -q -o DPkg::Lock::Timeout=300 update >&2 || say "some package lists could not be fetched; going on with those at hand"
	policy=$root/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'as_root rm -f "$policy"' EXIT
		trap 'exit 130' INT TERM
		as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$1" && chmod 755 "$1"' sh "$policy"
	fi
	# shellcheck disable=SC2086 # the names are words
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends $names </dev/null >&2
	if [ -d "$root/run/systemd/system" ]; then
		for part in $missing; do
			case $part in
			redis) as_root systemctl disable --quiet redis-server >&2 || true ;;
			postgres) as_root systemctl disable --quiet postgresql >&2 || true ;;
			esac
		done
	fi
}

missing=
for part in "$@"; do
	"have_$part" || missing="$missing $part"
done
[ -n "$missing" ] || exit 0

if have apt-get; then
	with_apt
elif have brew; then
	say "installing$(packages brew)"
	# shellcheck disable=SC2046 # the names are words
	[ -z "$(packages brew)" ] || brew install $(packages brew) >&2
	case " $missing " in *" chromium "*) brew install --cask google-chrome >&2 ;; esac
elif have dnf; then
	give_up "sudo dnf install -y$(packages other)"
elif have apk; then
	give_up "sudo apk add$(packages other | sed 's/postgresql-server/postgresql postgresql-contrib/; s/gcc/gcc musl-dev/')"
elif have pacman; then
	give_up "sudo pacman -S$(packages other | sed 's/postgresql-server/postgresql/; s/ redis/ valkey/')"
else
	give_up "the line by which this system installs:$(packages other)"
fi

for part in $missing; do
	"have_$part" || { say "$part is still missing after the installation"; exit 1; }
done
