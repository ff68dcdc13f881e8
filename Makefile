# Two commands: `make run` starts Talewire, `make test` runs everything that CI runs.

RUST_MIN := 1.95
NODE_MIN := 20.19
PORT     ?= 8000

# What the tests need beside Rust and Node, as command:package of Debian. Programs for operators lie in /usr/sbin, which is not in
# everybody's path.
TEST_NEEDS := chromium:chromium firefox-esr:firefox-esr curl:curl python3:python3 redis-server:redis-server \
              redis-sentinel:redis-sentinel redis-benchmark:redis-tools openssl:openssl pg_ctlcluster:postgresql nginx:nginx haproxy:haproxy \
              nats-server:nats-server rabbitmq-server:rabbitmq-server \
              caddy:caddy openssl:openssl ip:iproute2 iptables:iptables unshare:util-linux
# The same for modules of Python, as module:package.
PYTHON_NEEDS := ensurepip:python3-venv
# The same for files, as path:package.
FILE_NEEDS := /usr/lib/*/faketime/libfaketimeMT.so.1:libfaketime

TARGET      := $(or $(CARGO_TARGET_DIR),target)
WEB         := apps/web/dist/index.html
WEB_SOURCES := $(shell find apps/web packages \( -name node_modules -o -name dist \) -prune -o -type f -print)

.PHONY: help run test versions needs

help:
	@echo 'make run    build the web app and the server, start it at http://127.0.0.1:$(PORT) (PORT=… for another)'
	@echo 'make test   install what the tests need, then run everything that CI runs (Debian 12 or later)'

run: versions $(WEB)
	cargo build --release --locked --package talewire
	@echo 'Talewire: http://127.0.0.1:$(PORT)   (stop it with Ctrl-C; its data is in ./data)'
	@TALEWIRE_HTTP_ADMIN_LISTEN=127.0.0.1:$$(($(PORT) + 1)) \
	  exec $(TARGET)/release/talewire serve --data ./data --listen 127.0.0.1:$(PORT)

test: versions needs
	cargo xtask ci

$(WEB): node_modules/.package-lock.json $(WEB_SOURCES)
	npm run build
	@touch $@

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --no-audit --no-fund
	@touch $@

# Says which of Rust and Node is missing or older than the minimum.
versions:
	@at_least() { \
	  [ -n "$$2" ] || { echo "$$1 is missing; $$3 or later is needed: $$4"; exit 1; }; \
	  echo "$$2 $$3" | awk '{ split($$1, a, "."); split($$2, b, "."); exit !(a[1] > b[1] || (a[1] == b[1] && a[2]+0 >= b[2]+0)) }' \
	    || { echo "$$1 $$2 is too old; $$3 or later is needed: $$4"; exit 1; }; \
	}; \
	at_least Rust "$$(rustc --version 2>/dev/null | cut -d' ' -f2)" $(RUST_MIN) https://rustup.rs && \
	at_least Node "$$(node --version 2>/dev/null | tr -d v)" $(NODE_MIN) https://nodejs.org

# Names what the machine lacks, and installs it if that needs no password.
needs:
	@missing=; for need in $(TEST_NEEDS); do \
	  PATH=$$PATH:/usr/sbin command -v $${need%%:*} >/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	for need in $(PYTHON_NEEDS); do \
	  python3 -c "import $${need%%:*}" 2>/dev/null || missing="$$missing $${need##*:}"; \
	done; \
	for need in $(FILE_NEEDS); do \
	  ls $${need%%:*} >/dev/null 2>&1 || missing="$$missing $${need##*:}"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "The tests need:$$missing"; \
	install="apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y$$missing"; \
	if ! command -v apt-get >/dev/null; then echo "make test needs Debian 12 or later"; exit 1; \
	elif [ "$$(id -u)" = 0 ]; then sh -c "$$install"; \
	elif sudo -n true 2>/dev/null; then sudo -n sh -c "$$install"; \
	else echo "Install it with:  sudo sh -c '$$install'"; exit 1; fi
