# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# bash: what can follow synthrdpctl.
_synthrdpctl() {
	local word=${COMP_WORDS[COMP_CWORD]} words=

	if ((COMP_CWORD == 1)); then
		words='status sessions doctor enable disable end report --help --version'
	else
		case ${COMP_WORDS[1]} in
		status) words='--json --watch --help' ;;
		doctor) words='--json --help' ;;
		end) words="$(cd /sys/class/synthrdp 2>/dev/null && printf '%s ' synthrdp[0-9]*) --help" ;;
		*) words=--help ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _synthrdpctl synthrdpctl
