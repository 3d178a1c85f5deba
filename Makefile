# SPDX-License-Identifier: GPL-2.0-only
# hv_synthrdp: `make help` says what there is.

KDIR ?= /lib/modules/$(shell uname -r)/build
DESTDIR ?=
PREFIX ?= /usr

VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
# What the packages are built from
PACKAGED := COPYING Kbuild Kconfig Makefile README.md debian dkms.conf drivers tools

# Python of the distribution: the tests use its packages.
PYTHON := /usr/bin/python3

all: modules relay

help:
	@echo 'Building and installing (as root, in the guest):'
	@echo '  make                  module for the running kernel, and relay'
	@echo '  make install          install both, and an xrdp instance for them'
	@echo '  make modules          the module only'
	@echo '  make relay            the relay only'
	@echo '  make uninstall        remove what that has installed'
	@echo '  make deb              Debian packages of all that, in build/deb'
	@echo '  make rpm              the same for Fedora and its kin, in build/rpm'
	@echo '  make clean            remove what was built'
	@echo '      KDIR=DIR          build for the kernel whose headers are in DIR'
	@echo '      DESTDIR=DIR       install below DIR'
	@echo
	@echo 'Seeing and proving it (as root, on any Debian machine):'
	@echo '  make demo             a desktop through an emulated Hyper-V host'
	@echo '      KEEP=1            leave it running, and say how to look around'
	@echo '  make check            all tests'
	@echo '      T=PATTERN         those whose names match'
	@echo '  make lint             those of them that only read the sources'
	@echo '  make check-debug      the same, KUnit, and thousands of random sessions on'
	@echo '                        kernels that find more (hours)'
	@echo '      SEED=N            with the dice of the run that said so'
	@echo '  make check-system     our packages on whole systems of Debian 12 and 13: an hour'
	@echo '  make fuzz             lie to driver and relay in a million ways'
	@echo '      SEED=N SESSIONS=N MINUTES=N   as it said it did; 10000; 10 for the relay'
	@echo '  make bench            count what the driver costs, and other roads (half an hour)'
	@echo '      BASE=COMMIT       and what has moved since'
	@echo '  make mutants          break the driver, and see the tests notice'
	@echo '  make coverage         how much of the driver the tests run, line by line'
	@echo '  make series           the driver as patches for the kernel, in build/series'
	@echo '  make qemu-series      the patches of tests/qemu for QEMU, in build/qemu-series'

# One line for what is missing, instead of a trace.
kernel-headers:
	@test -e '$(KDIR)/Makefile' || { \
		echo 'No kernel headers in $(KDIR). On Debian: apt install linux-headers-$$(uname -r); or say KDIR=DIR.' >&2; \
		exit 1; }

modules: kernel-headers
	$(MAKE) -C '$(KDIR)' M='$(CURDIR)' modules

modules_install: kernel-headers
	$(MAKE) -C '$(KDIR)' M='$(CURDIR)' \
		$(if $(DESTDIR),INSTALL_MOD_PATH='$(DESTDIR)') modules_install

relay:
	$(MAKE) -C tools/synthrdp-relay

tools_install:
	$(MAKE) -C tools/synthrdp-relay install \
		DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)'
	$(MAKE) -C tools/synthrdpctl install DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)'
	$(MAKE) -C tools/xrdp install DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)'

install: modules relay
	$(MAKE) modules_install tools_install

# What an installation to another place consists of goes, but for what DKMS has built and a
# configuration that was changed.
uninstall:
	rm -rf build/uninstall
	$(MAKE) -s tools_install DESTDIR='$(CURDIR)/build/uninstall'
	cd build/uninstall && find . ! -type d | while read -r name; do \
		case $$name in \
		*.conf) cmp -s "$$name" "$(DESTDIR)/$$name" || continue;; \
		esac; \
		rm -f "$(DESTDIR)/$$name"; \
	done
	cd build/uninstall && find . -depth -type d -path '*synthrdp*' | while read -r name; do \
		rmdir --ignore-fail-on-non-empty "$(DESTDIR)/$$name"; \
	done
	find '$(DESTDIR)/lib/modules/' -name 'hv_synthrdp.ko*' ! -path '*/dkms/*' -print -delete
	$(if $(DESTDIR),,depmod)

# Built from a copy: dpkg-buildpackage writes beside the directory that it is run in.
deb:
	@command -v dpkg-buildpackage >/dev/null || { \
		echo 'No dpkg-buildpackage. On Debian: apt install dpkg-dev; then apt build-dep ./' >&2; \
		exit 1; }
	rm -rf build/deb
	mkdir -p build/deb/source
	cp -a $(PACKAGED) build/deb/source
	cd build/deb/source && dpkg-buildpackage --no-sign --build=binary
	@rm -rf build/deb/source
	@ls build/deb/*.deb

# --nodeps: on Debian rpm does not know what is installed.
rpm:
	@command -v rpmbuild >/dev/null || { \
		echo 'No rpmbuild. On Fedora: dnf install rpm-build; on Debian: apt install rpm' >&2; \
		exit 1; }
	rm -rf build/rpm
	mkdir -p build/rpm/SOURCES
	tar -czf build/rpm/SOURCES/hv-synthrdp-$(VERSION).tar.gz \
		--transform 's,^,hv-synthrdp-$(VERSION)/,' $(PACKAGED)
	rpmbuild --quiet --nodeps --define '_topdir $(CURDIR)/build/rpm' -ba rpm/hv-synthrdp.spec
	@find build/rpm -name '*.rpm'

# Not the kernel's own: its headers may have gone since.
modules_clean:
	@rm -f Module.symvers modules.order .*.cmd
	@find drivers \( -name '*.o' -o -name '*.ko' -o -name '*.mod' \
		-o -name '*.mod.c' -o -name '.*.cmd' -o -name modules.order \) \
		-delete

clean: modules_clean
	$(MAKE) -C tools/synthrdp-relay clean
	rm -rf build

demo:
	@$(PYTHON) tests/demo/run $(if $(KEEP),--keep)

check:
	@$(PYTHON) tests/run $(if $(T),-k '$(T)')

lint:
	@$(PYTHON) tests/run static $(if $(T),-k '$(T)')

# What `make check` has of it, and all that takes longer.
check-system:
	@$(PYTHON) tests/run system $(if $(T),-k '$(T)')

# Kernels that find what a test alone would not see; the first run builds them.
# With a seed, tests/vm/test_soak.py makes thousands of random sessions; it stands in for
# test_many.py and test_loads.py, which wait for each release of a device: here that takes
# seconds.
# These kernels have neither BPF nor dynamic debug, which test_tracers.py is about, and no
# kexec: test_kexec.py is for Debian's.
# A guest of each kernel at once: two of them wait for half of the time.
check-debug:
	@SYNTHRDP_KERNELS='debug-6.1 debug-sid kcsan' \
		SYNTHRDP_SEED=$(or $(SEED),$(strip $(shell od -An -N3 -tu4 /dev/urandom))) \
		$(PYTHON) tests/run -n 3 kunit vm vm/debug_allocations.py \
		--ignore=vm/test_many.py \
		--ignore=vm/test_loads.py \
		--ignore=vm/test_tracers.py $(if $(T),-k '$(T)')

# The driver for the kernel, and what the emulated host needs for QEMU, as mails.
series:
	@$(PYTHON) tests/series/run linux

qemu-series:
	@$(PYTHON) tests/series/run qemu

# SEED, SESSIONS and MINUTES go by way of the environment.
fuzz:
	@$(PYTHON) tests/fuzz/run

# BASE goes by way of the environment.
bench:
	@$(PYTHON) tests/bench/run

mutants:
	@$(PYTHON) tests/mutants/run $(if $(T),'$(T)')

coverage:
	@$(PYTHON) tests/kunit/coverage

.PHONY: all help kernel-headers modules modules_install modules_clean relay \
	tools_install install uninstall deb rpm clean demo check lint check-system check-debug fuzz \
	bench mutants coverage series qemu-series
