# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# bash: what can follow synthrdpctl.
_synthrdpctl() {
	local word=${COMP_WORDS[COMP_CWORD]} words=

	if ((COMP_CWORD == 1)); then
		words='status sessions doctor enable disable end capture report --help --version'
	else
		case ${COMP_WORDS[1]} in
		status) words='--json --watch --help' ;;
		doctor) words='--json --help' ;;
		capture) words='--limit --help' ;;
		end) words="$(cd /sys/class/synthrdp 2>/dev/null && printf '%s ' synthrdp[0-9]*) --help" ;;
		*) words=--help ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -o default -F _synthrdpctl synthrdpctl
